//! A server that refuses a connection at once, before it is asked anything, is understood at once: what it said and its FIN
//! may arrive in the same event as the connection itself, after which nothing more happens on it.

mod common;

use common::*;
use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};

/// Connections that are made in one loop iteration: while the worker makes the last ones, the first are refused already.
const CONNECTIONS: usize = 30;

#[test]
fn a_refusal_that_comes_with_the_connection_is_not_waited_for() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut refused = Vec::new();
            for connection in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let mut connection = connection.unwrap();
                let _ = connection.write_all(b"-ERR max number of clients reached\r\n");
                let _ = connection.shutdown(Shutdown::Write);
                // A FIN alone: closed whole, it would answer the hand-shake with a reset, which is one more event.
                refused.push(connection);
            }
        });
        let blocks = (0..CONNECTIONS).map(|i| {
            format!("meteorit_redis r{i} {{ server redis://127.0.0.1:{port}; connect_timeout 60s; timeout 60s; }}\n")
        });
        let locations = (0..CONNECTIONS)
            .map(|i| format!("location = /{i} {{ meteorit_pass r{i}; meteorit_command PUBLISH live $event; }}\n"));
        let nginx = Nginx::builder().http(&blocks.collect::<String>()).server(&locations.collect::<String>()).start();

        let worker = nginx.worker_pids()[0];
        let mut clients: Vec<Http> = (0..CONNECTIONS).map(|_| Http::connect(nginx.port())).collect();
        for client in &mut clients {
            assert_eq!(client.get("/none").status, 404);
        }
        nginx.signal(worker, libc::SIGSTOP);
        for (i, client) in clients.iter_mut().enumerate() {
            client.send_raw(&Request::post(&format!("/{i}"), "{}").to_bytes());
        }
        nginx.signal(worker, libc::SIGCONT);
        let answers: Vec<_> =
            clients.iter_mut().map(|client| client.try_read_response().map(|answer| answer.status).ok()).collect();
        over.store(true, Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(("127.0.0.1", port));
        drop(clients);
        nginx.kill();
        assert_eq!(answers, [Some(503); CONNECTIONS]);
        assert_eq!(nginx.count_log("max number of clients reached"), CONNECTIONS);
    });
}
