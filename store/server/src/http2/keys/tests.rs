use http::Request;

use super::*;

const LIMIT: usize = 100_000;

/// What the server makes of a request whose body comes in these pieces.
async fn read(pieces: Vec<Vec<u8>>) -> Result<Vec<u8>, (Code, String)> {
    let (client, server) = tokio::io::duplex(1 << 20);
    let serving = async {
        let mut connection = h2::server::handshake(server).await.expect("HTTP/2");
        let (request, mut respond) = connection.accept().await.expect("a request").expect("no error");
        let mut body = request.into_body();
        let read = tokio::select! {
            read = message(&mut body, LIMIT) => read,
            _ = connection.accept() => panic!("the client goes before it is answered"),
        };
        respond.send_response(Response::new(()), true).expect("the client is there");
        drop((body, respond));
        while connection.accept().await.is_some() {}
        read
    };
    let asking = async {
        let (requests, connection) = h2::client::handshake(client).await.expect("HTTP/2");
        let asked = async {
            let request = Request::post("http://member/etcdserverpb.KV/Put").body(()).expect("a request");
            let mut requests = requests.ready().await.expect("the server is there");
            let (answer, mut body) = requests.send_request(request, false).expect("sent");
            for piece in pieces {
                // Who has refused takes no more.
                let _ = body.send_data(piece.into(), false);
                tokio::task::yield_now().await;
            }
            let _ = body.send_data(Bytes::new(), true);
            answer.await.expect("an answer");
        };
        tokio::select! {
            _ = connection => panic!("the server went"),
            () = asked => {}
        }
    };
    let (read, ()) = tokio::join!(serving, asking);
    read.map(|bytes| bytes.to_vec()).map_err(|status| (status.code(), status.message().to_owned()))
}

/// A message as it is sent.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("small");
    [&[flag], &length.to_be_bytes()[..], message].concat()
}

#[tokio::test]
async fn a_message_comes_in_pieces_of_any_size() {
    let long: Vec<u8> = (0..LIMIT).map(|n| n as u8).collect();
    for message in [&b""[..], b"m", b"message", &long] {
        let sent = framed(0, message);
        for size in [1, 4, 5, 6, 7, 1000, usize::MAX] {
            if sent.len() / size > 1000 {
                continue;
            }
            let pieces = sent.chunks(size.min(sent.len())).map(<[u8]>::to_vec).collect();
            assert_eq!(read(pieces).await.as_deref(), Ok(message), "{} bytes by {size}", sent.len());
        }
    }
    // What is behind it isn't looked at.
    assert_eq!(read(vec![framed(0, b"one"), framed(0, b"two")]).await, Ok(b"one".to_vec()));
    assert_eq!(read(vec![[framed(0, b"one"), framed(7, b"two")].concat()]).await, Ok(b"one".to_vec()));
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let refused = async |pieces: Vec<Vec<u8>>| read(pieces).await.expect_err("no message");
    let internal = |text: &str| (Code::Internal, text.to_owned());
    assert_eq!(refused(vec![]).await, internal("Missing request message."));
    assert_eq!(refused(vec![vec![0, 0]]).await, internal("Unexpected EOF decoding stream."));
    assert_eq!(refused(vec![framed(0, b"whole")[..8].to_vec()]).await, internal("Unexpected EOF decoding stream."));
    let compressed = "protocol error: received message with compressed-flag but no grpc-encoding was specified";
    assert_eq!(refused(vec![framed(1, b"zip")]).await, internal(compressed));
    let flag = "protocol error: received message with invalid compression flag: 2";
    assert_eq!(refused(vec![framed(2, b"zip")]).await, internal(flag));
    // By its head alone: nothing is kept of what is too large.
    let large = format!("grpc: received message larger than max ({} vs. {LIMIT})", u32::MAX);
    let head = vec![0, 255, 255, 255, 255];
    assert_eq!(refused(vec![head]).await, (Code::ResourceExhausted, large));
}
