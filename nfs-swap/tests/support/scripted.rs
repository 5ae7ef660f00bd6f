//! A server that follows a script: a file in memory behind MOUNT and NFS, and a hook which may
//! answer any call in another way.

use core::net::{Ipv4Addr, SocketAddr};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

pub const GETATTR: u32 = 1;
pub const READ: u32 = 6;
pub const WRITE: u32 = 7;
pub const COMMIT: u32 = 21;

const MOUNT: u32 = 100_005;

/// A call, with the arguments of READ, WRITE and COMMIT taken apart.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which connection it came over, from 0 on.
    pub connection: usize,
    pub xid: u32,
    pub program: u32,
    pub procedure: u32,
    pub offset: u64,
    pub count: u32,
    pub data: Vec<u8>,
    /// All of its arguments, as they came.
    pub arguments: Vec<u8>,
}

impl Call {
    pub fn is(&self, procedure: u32) -> bool {
        self.program != MOUNT && self.procedure == procedure
    }
}

/// What the server does about a call.
pub enum Answer {
    /// What a good server would.
    Normal,
    /// These results, behind a good head.
    Results(Vec<u32>),
    /// These bytes as they are.
    Raw(Vec<u8>),
    /// These bytes, and then it hangs up.
    RawThenClose(Vec<u8>),
    /// Nothing.
    Silence,
    /// Over UDP: these messages, each behind the mark that it is sent without.
    Datagrams(Vec<Vec<u8>>),
    /// Over UDP: this message from another port, and then what a good server would.
    FromElsewhere(Vec<u8>),
}

/// The attributes and contents of the only file.
pub struct FileState {
    pub kind: u32,
    pub size: u64,
    pub used: u64,
    pub access: u32,
    pub pages: HashMap<u64, Vec<u8>>,
}

pub struct Scripted {
    pub address: SocketAddr,
    pub file: Arc<Mutex<FileState>>,
}

impl Scripted {
    /// Serves a file of 64 pages of zeros until the test ends.
    pub fn start(script: impl FnMut(&Call) -> Answer + Send + 'static) -> Scripted {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let file = FileState::shared();
        let state = Arc::clone(&file);
        let script = Arc::new(Mutex::new(script));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (state, script) = (Arc::clone(&state), Arc::clone(&script));
                thread::spawn(move || {
                    // An error is the end of the connection, and the client's to deal with.
                    let _ = serve(stream.unwrap(), connection, &state, &script);
                });
            }
        });
        Scripted { address, file }
    }

    /// The same over UDP; there all calls come over connection 0.
    pub fn start_udp(mut script: impl FnMut(&Call) -> Answer + Send + 'static) -> Scripted {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let file = FileState::shared();
        let state = Arc::clone(&file);
        thread::spawn(move || {
            let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let mut body = vec![0; 65_536];
            // A client that has gone is told of by an error.
            while let Ok((len, client)) = socket.recv_from(&mut body) {
                let call = parse(0, &body[..len]);
                let send = |from: &UdpSocket, record: Vec<u8>| {
                    let _ = from.send_to(&record[4..], client);
                };
                let normal = || results(&call, &mut state.lock().unwrap());
                match script(&call) {
                    Answer::Normal => send(&socket, normal()),
                    Answer::Results(words) => send(&socket, reply(&call, &words, &[])),
                    Answer::Raw(record) | Answer::RawThenClose(record) => send(&socket, record),
                    Answer::Datagrams(records) => {
                        records.into_iter().for_each(|record| send(&socket, record));
                    }
                    Answer::FromElsewhere(record) => {
                        send(&elsewhere, record);
                        send(&socket, normal());
                    }
                    Answer::Silence => {}
                }
            }
        });
        Scripted { address, file }
    }

    /// What a good server answers to `call` now.
    pub fn good(file: &Mutex<FileState>, call: &Call) -> Vec<u8> {
        results(call, &mut file.lock().unwrap())
    }
}

impl FileState {
    fn shared() -> Arc<Mutex<FileState>> {
        let size = 64 * super::PAGE as u64;
        Arc::new(Mutex::new(FileState {
            kind: 1,
            size,
            used: size,
            access: 0x3f,
            pages: HashMap::new(),
        }))
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    file: &Mutex<FileState>,
    script: &Mutex<impl FnMut(&Call) -> Answer>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut mark = [0; 4];
        stream.read_exact(&mut mark)?;
        let mut body = vec![0; (u32::from_be_bytes(mark) & 0x7fff_ffff) as usize];
        stream.read_exact(&mut body)?;
        let call = parse(connection, &body);
        let answer = (script.lock().unwrap())(&call);
        match answer {
            Answer::Normal => {
                let reply = results(&call, &mut file.lock().unwrap());
                stream.write_all(&reply)?;
            }
            Answer::Results(words) => stream.write_all(&reply(&call, &words, &[]))?,
            Answer::Raw(bytes) => stream.write_all(&bytes)?,
            Answer::RawThenClose(bytes) => return stream.write_all(&bytes),
            Answer::Silence => {}
            Answer::Datagrams(_) | Answer::FromElsewhere(_) => panic!("not over TCP"),
        }
    }
}

fn parse(connection: usize, body: &[u8]) -> Call {
    let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
    let arguments = 24 + 8 + word(28) as usize + 8;
    let mut call = Call {
        connection,
        xid: word(0),
        program: word(12),
        procedure: word(20),
        offset: 0,
        count: 0,
        data: vec![],
        arguments: body[arguments..].to_vec(),
    };
    if call.is(READ) || call.is(WRITE) || call.is(COMMIT) {
        let after_handle = arguments + 4 + word(arguments) as usize;
        call.offset = u64::from(word(after_handle)) << 32 | u64::from(word(after_handle + 4));
        call.count = word(after_handle + 8);
        if call.is(WRITE) {
            call.data = body[after_handle + 20..][..call.count as usize].to_vec();
        }
    }
    call
}

/// A record with an accepted reply.
pub fn reply(call: &Call, words: &[u32], payload: &[u8]) -> Vec<u8> {
    let head = [call.xid, 1, 0, 0, 0, 0];
    let mut body: Vec<u8> = head
        .iter()
        .chain(words)
        .flat_map(|word| word.to_be_bytes())
        .collect();
    body.extend_from_slice(payload);
    let mark = 0x8000_0000 | body.len() as u32;
    [&mark.to_be_bytes()[..], &body].concat()
}

/// What a good server answers.
fn results(call: &Call, file: &mut FileState) -> Vec<u8> {
    let page = super::PAGE as u64;
    if call.program == MOUNT {
        return match call.procedure {
            1 => reply(call, &[0, 4, 0x0102_0304, 1, 1], &[]),
            _ => reply(call, &[], &[]),
        };
    }
    match call.procedure {
        GETATTR => {
            let mut words = vec![0, file.kind, 0o600, 1, 0, 0];
            words.extend([(file.size >> 32) as u32, file.size as u32]);
            words.extend([(file.used >> 32) as u32, file.used as u32]);
            words.extend([0; 12]);
            reply(call, &words, &[])
        }
        3 => reply(call, &[0, 4, 0x0506_0708, 0, 0], &[]),
        4 => reply(call, &[0, 0, file.access], &[]),
        READ => {
            let pages = call.offset / page..(call.offset + u64::from(call.count)) / page;
            let data: Vec<u8> = pages
                .flat_map(|index| {
                    file.pages
                        .get(&index)
                        .cloned()
                        .unwrap_or(vec![0; super::PAGE])
                })
                .collect();
            let count = data.len() as u32;
            reply(call, &[0, 0, count, 0, count], &data)
        }
        WRITE => {
            for (i, data) in call.data.chunks(super::PAGE).enumerate() {
                file.pages
                    .insert(call.offset / page + i as u64, data.to_vec());
            }
            reply(call, &[0, 0, 0, call.count, 2, 1, 1], &[])
        }
        19 => reply(
            call,
            &[
                0, 0, 65_536, 65_536, 1, 65_536, 65_536, 1, 4096, 0, 0, 0, 1, 0x1b,
            ],
            &[],
        ),
        COMMIT => reply(call, &[0, 0, 0, 1, 1], &[]),
        other => panic!("procedure {other} is not in the script"),
    }
}
