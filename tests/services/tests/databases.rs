//! The guards of the stores, and of what is between.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use bulla_services::{MariaDb, Postgres, Proxy, Redis, require};

macro_rules! starts_restarts_and_leaves_nothing {
    ($name:ident, $guard:ident) => {
        #[test]
        fn $name() {
            let Some(mut server) = require($guard::start()) else { return };
            let (directory, port) = (server.directory(), server.port());
            let there = || TcpStream::connect(("127.0.0.1", port)).is_ok();
            // A client that stays keeps nobody from stopping.
            let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            server.restart().unwrap();
            assert!(there());
            server.kill();
            assert!(!there());
            server.restart().unwrap();
            assert!(there());
            drop(server);
            assert!(!directory.exists() && !there());
        }
    };
}

starts_restarts_and_leaves_nothing!(redis, Redis);
starts_restarts_and_leaves_nothing!(postgres, Postgres);
starts_restarts_and_leaves_nothing!(mariadb, MariaDb);

#[test]
fn a_proxy_cuts_hangs_and_restores() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(server.local_addr().unwrap().port()).unwrap();
    let connect = || TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    let (mut client, (mut far, _)) = (connect(), server.accept().unwrap());
    let mut byte = [0];

    client.write_all(b"a").unwrap();
    far.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"a");

    proxy.hang();
    client.write_all(b"b").unwrap();
    far.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(far.read_exact(&mut byte).is_err(), "nothing comes through");
    proxy.restore();
    far.set_read_timeout(None).unwrap();
    far.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"b", "what hung goes on");

    proxy.cut();
    assert!(matches!(client.read(&mut byte), Ok(0) | Err(_)), "the connection ends");
    assert!(matches!(connect().read(&mut byte), Ok(0) | Err(_)), "nor is there a new one");
    proxy.restore();
    let (mut client, (mut far, _)) = (connect(), server.accept().unwrap());
    far.write_all(b"c").unwrap();
    client.read_exact(&mut byte).unwrap();
    assert_eq!((byte, proxy.bytes()), (*b"c", 3));
}
