//! A client that is as small as it can be.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    port: u16,
}

pub(crate) fn connect(port: u16) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

pub(crate) fn request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: q\r\nX-Project-ID: p\r\nContent-Type: application/json\r\n\
         Client-ID: 30387f00-39a0-11ee-be56-0242ac120002\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Client {
    pub(crate) fn new(port: u16) -> Self {
        Self { stream: connect(port), port }
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        // Some services end a connection when they like.
        for _ in 0..3 {
            if let Ok(answer) = self.try_ask(method, path, body) {
                return answer;
            }
            self.stream = connect(self.port);
        }
        panic!("{method} {path}: no answer");
    }

    fn try_ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, Vec<u8>)> {
        self.stream.get_mut().write_all(request(method, path, body).as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = status.parse().unwrap();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, body))
    }
}

pub(crate) fn message() -> String {
    format!("{{\"ttl\": 3600, \"body\": \"{}\"}}", "x".repeat(1024))
}

pub(crate) fn posted(count: usize) -> String {
    format!("{{\"messages\": [{}]}}", vec![message(); count].join(","))
}
