//! Component types and their hosts; groups and their members; access keys.

use bulla_journal::{Text, events};
use bulla_keystore::{AccessKey, ApiUser, KeystoreError, Reach, RevokedHost};
use bulla_seal::{GroupName, Principal, SignedCredential, SuiteSet, UnixTime};
use zeroize::Zeroizing;

use super::desk::Desk;
use super::{CONTROL, key_file};
use crate::failure::{Failure, Result};

/// A host of a component type that was added.
pub(crate) struct AddedHost {
    /// Whether its type is new.
    pub(crate) new: bool,
    pub(crate) without_role: Vec<String>,
}

/// A group that got members.
pub(crate) struct Extended {
    pub(crate) group: GroupName,
    pub(crate) new: bool,
    pub(crate) added: Vec<String>,
    /// Whether members' broker users may listen to it.
    pub(crate) permitted: Result<()>,
}

/// Whether a group is to be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    New,
    /// It is made unless it is there.
    Either,
    Known,
}

/// What revoking a host of a type makes new.
pub(crate) fn reach_of(name: &str) -> Reach {
    if name == CONTROL { Reach::Everything } else { Reach::Type }
}

impl Desk {
    /// Adds a host of a component type, and the type if it is new; hands its key file over.
    pub(crate) async fn add_component(
        &self,
        (name, instance): (&str, &str),
        suites: SuiteSet,
        take: impl FnOnce(&Zeroizing<String>) -> Result<()>,
    ) -> Result<AddedHost> {
        if name == CONTROL {
            return Err(Failure::usage(format!(
                "component/{CONTROL} is the control plane itself; choose another name"
            )));
        }
        bulla_seal::principal::check_name("instance", instance)?;
        let keystore = &self.keystore;
        // Another host of a type that exists gets a signing key of its own.
        let new = match keystore.add_component(name, &[], suites).await {
            Ok(_) => true,
            Err(KeystoreError::NameTaken { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let bus = key_file::bus_entry(&self.settings);
        let file = key_file::component_key_file(keystore, name, instance, bus).await?;
        take(&file.to_text()?)?;
        let (component, host) = (Principal::component(name)?, Text::new(instance));
        self.record(events::ComponentAdded { component, host });
        Ok(AddedHost { new, without_role: keystore.components_without_role().await? })
    }

    /// Makes a type's next key to receive with.
    pub(crate) async fn rotate_component(&self, name: &str) -> Result<SignedCredential> {
        let audience = self.keystore.rotate_component(name).await?;
        let (component, epoch) = (audience.party.principal.clone(), audience.epoch);
        self.record(events::ComponentRotated { component, epoch, by: "operator" });
        Ok(audience)
    }

    /// Revokes a host of a type.
    pub(crate) async fn revoke_host(&self, name: &str, instance: &str) -> Result<RevokedHost> {
        let revoked = self.keystore.revoke_host(name, instance, reach_of(name)).await?;
        let component = Principal::component(name)?;
        let host = Text::new(instance);
        self.record(events::ComponentRevoked { component: component.clone(), host });
        let (epoch, by) = (revoked.epoch, "operator");
        self.record(events::ComponentRotated { component, epoch, by });
        for (group, epoch) in &revoked.groups {
            self.record(events::GroupRekeyed { group: Text::of(group), epoch: *epoch });
        }
        self.flush()?;
        // Where hosts of the type read the database themselves.
        self.keystore.fill_component_keys().await?;
        Ok(revoked)
    }

    /// Adds a group, or members to it.
    pub(crate) async fn extend_group(
        &self,
        name: &str,
        members: &[String],
        wanted: Wanted,
    ) -> Result<Extended> {
        let group = GroupName::new(name.strip_prefix("group/").unwrap_or(name))?;
        let members: Vec<Principal> =
            members.iter().map(|member| member.parse()).collect::<std::result::Result<_, _>>()?;
        let keystore = &self.keystore;
        for member in &members {
            // All of them or none.
            keystore.party(member).await?;
        }
        let new = match wanted {
            Wanted::Known => false,
            _ => match keystore.add_group(&group).await {
                Ok(()) => true,
                Err(KeystoreError::GroupTaken { .. } | KeystoreError::GroupBuiltIn { .. })
                    if wanted == Wanted::Either =>
                {
                    false
                }
                Err(error) => return Err(error.into()),
            },
        };
        if new {
            self.record(events::GroupAdded { group: Text::of(&group) });
        }
        let mut added = Vec::new();
        for member in &members {
            if keystore.add_member(&group, member).await? {
                let (group, member) = (Text::of(&group), Text::of(member));
                self.record(events::GroupExtended { group, member: member.clone() });
                added.push(member.to_string());
            }
        }
        self.flush()?;
        let agents: Vec<_> = members.iter().filter(|m| m.is_agent()).map(Principal::name).collect();
        let permitted = async { self.logins()?.permit(keystore, &agents).await };
        let permitted = permitted.await.map(drop).map_err(|failure| {
            Failure::new(format!(
                "{group} has its members, but their broker users may not listen to it yet: \
                 {failure}. Once the broker answers, run `bulla broker sync`"
            ))
        });
        Ok(Extended { group, new, added, permitted })
    }

    /// Makes another access key; takes it back if it can't be handed over.
    pub(crate) async fn add_access_key(
        &self,
        user: &ApiUser,
        end: Option<UnixTime>,
        take: impl FnOnce(&AccessKey) -> Result<()>,
    ) -> Result<AccessKey> {
        let key = self.keystore.add_access_key(user, end).await?;
        if let Err(failure) = take(&key) {
            // Nobody has its secret.
            self.keystore.remove_access_key(&key.record.id).await?;
            return Err(failure);
        }
        let (access, user) = (Text::new(&key.record.id), Text::of(user));
        self.record(events::AccessKeyMade { access, user });
        Ok(key)
    }

    /// Has an access key refused for now, or taken again.
    pub(crate) async fn disable_access_key(&self, id: &str, disabled: bool) -> Result<()> {
        self.keystore.disable_access_key(id, disabled).await?;
        let how = if disabled { "disabled" } else { "enabled" };
        self.record(events::AccessKeyChanged { how, access: Text::new(id) });
        Ok(())
    }

    /// Removes an access key and wipes its secret.
    pub(crate) async fn remove_access_key(&self, id: &str) -> Result<()> {
        self.keystore.remove_access_key(id).await?;
        self.record(events::AccessKeyChanged { how: "removed", access: Text::new(id) });
        Ok(())
    }
}
