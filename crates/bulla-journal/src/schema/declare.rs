//! The macro that makes everything out of a declaration.

/// Declares events:
///
/// ```text
/// /// What it means.
/// Type = "stable-name": Class, severity, "words of the log line", metric_name [by label] [adds amount] {
///     /// What the field means.
///     field: FieldType,
/// }
/// ```
macro_rules! events {
    ($(
        $(#[doc = $meaning:literal])+
        $type:ident = $name:literal: $class:ident, $level:ident, $message:literal, $metric:ident
            $(by $label:ident)? $(adds $amount:ident)?
        {
            $( $(#[doc = $about:literal])+ $field:ident: $kind:ty, )*
        }
    )*) => {
        $(
            $(#[doc = $meaning])+
            #[derive(Debug, Clone, PartialEq)]
            pub struct $type {
                $( $(#[doc = $about])+ pub $field: $kind, )*
            }

            impl From<$type> for Event {
                fn from(event: $type) -> Self {
                    Self::$type(event)
                }
            }
        )*

        /// Something that happened.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Event {
            $( $(#[doc = $meaning])+ $type($type), )*
        }

        enum Index { $($type,)* }

        /// Every event there is.
        pub const SCHEMA: &[EventInfo] = &[$(
            EventInfo {
                name: $name,
                class: Class::$class,
                severity: severity!($level),
                meaning: concat!($($meaning,)+),
                message: $message,
                metric: concat!("bulla_", stringify!($metric), "_total"),
                label: label!($($label)?),
                fields: &[$(
                    FieldInfo {
                        name: stringify!($field),
                        kind: <$kind as Field>::KIND,
                        meaning: concat!($($about,)+),
                    },
                )*],
            },
        )*];

        impl Event {
            /// Its place in [`SCHEMA`].
            pub fn index(&self) -> usize {
                match self { $( Self::$type(_) => Index::$type as usize, )* }
            }

            /// Its stable name.
            pub fn name(&self) -> &'static str {
                match self { $( Self::$type(_) => $name, )* }
            }

            /// What sort of thing it is.
            pub fn class(&self) -> Class {
                match self { $( Self::$type(_) => Class::$class, )* }
            }

            /// Writes its fields as members of a JSON object, each with a comma before it.
            pub(crate) fn fields(&self, out: &mut Vec<u8>) {
                match self {
                    $( Self::$type(event) => {
                        let _ = event;
                        $(
                            out.extend_from_slice(concat!(",\"", stringify!($field), "\":").as_bytes());
                            event.$field.json(out);
                        )*
                    } )*
                }
            }

            /// The metric's label, if it has one, and what is added to it.
            pub(crate) fn measure(&self) -> (&'static str, u64) {
                match self {
                    $( Self::$type(event) => {
                        let _ = event;
                        (measured!(event, label, "" $(, $label)?), measured!(event, amount, 1 $(, $amount)?))
                    } )*
                }
            }

            /// Its line in the log.
            pub fn log(&self) {
                match self {
                    $( Self::$type(event) => {
                        let _ = event;
                        tracing::$level!(event = $name, $($field = %event.$field,)* $message);
                    } )*
                }
            }
        }
    };
}

macro_rules! severity {
    (debug) => {
        Severity::Debug
    };
    (info) => {
        Severity::Info
    };
    (warn) => {
        Severity::Warn
    };
    (error) => {
        Severity::Error
    };
}

macro_rules! label {
    () => {
        None
    };
    ($label:ident) => {
        Some(stringify!($label))
    };
}

macro_rules! measured {
    ($event:ident, $how:ident, $default:literal) => {
        $default
    };
    ($event:ident, $how:ident, $default:literal, $field:ident) => {
        $event.$field.$how()
    };
}

pub(crate) use {events, label, measured, severity};
