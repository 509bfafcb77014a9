use super::*;

fn greeting() -> Greeting {
    let url = "https://a:2380".to_owned();
    Greeting { purpose: Purpose::Talk, cluster_id: 7, from: 1, to: 2, url, from_folder: 3, to_folder: 4 }
}

#[tokio::test]
async fn a_greeting_arrives_as_it_was_sent() {
    let mut bytes = Vec::new();
    greeting().write(&mut bytes).await.expect("written");
    assert_eq!(Greeting::read(&mut bytes.as_slice()).await.expect("read"), greeting());
}

#[tokio::test]
async fn what_is_cut_or_foreign_is_refused() {
    let mut bytes = Vec::new();
    greeting().write(&mut bytes).await.expect("written");
    for end in 0..bytes.len() {
        assert!(Greeting::read(&mut &bytes[..end]).await.is_err(), "{end} bytes of a greeting");
    }
    let http = b"GET /members HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(Greeting::read(&mut http.as_slice()).await.is_err());
    let mut question = Vec::new();
    Frame::Question(PeerQuestion { nonce: 5, question: None }).write(&mut question).await.expect("written");
    assert!(matches!(Frame::read(&mut question.as_slice()).await, Ok((Frame::Question(q), _)) if q.nonce == 5));
    assert!(Frame::read(&mut &question[..question.len() - 1]).await.is_err());
    let mut ping = Vec::new();
    Frame::Ping(7).write(&mut ping).await.expect("written");
    assert!(matches!(Frame::read(&mut ping.as_slice()).await, Ok((Frame::Ping(7), 9))));
    assert!(Frame::read(&mut [0, 0, 0, 3, PONG, 1, 2].as_slice()).await.is_err(), "a time that is cut short");
    assert!(Frame::read(&mut [0xff; 64].as_slice()).await.is_err(), "a length beyond all bounds");
}
