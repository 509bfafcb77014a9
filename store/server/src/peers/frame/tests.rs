use store_core::wire::PeerQuestion;

use super::*;

#[tokio::test]
async fn what_is_cut_or_too_long_is_refused() {
    let greeting = Greeting { url: "https://a:2380".to_owned(), ..Greeting::default() };
    let mut bytes = Vec::new();
    write_greeting(&mut bytes, &greeting).await.expect("written");
    assert_eq!(read_greeting(&mut bytes.as_slice()).await.expect("read"), greeting);
    for end in 0..bytes.len() {
        assert!(read_greeting(&mut &bytes[..end]).await.is_err(), "{end} bytes of a greeting");
    }
    let http = b"GET /members HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(read_greeting(&mut http.as_slice()).await.is_err());
    let mut question = Vec::new();
    let asked = Frame::Question(PeerQuestion { nonce: 5, question: None });
    write_frame(&mut question, &asked).await.expect("written");
    assert_eq!(read_frame(&mut question.as_slice()).await.expect("read").0, asked);
    assert!(read_frame(&mut &question[..question.len() - 1]).await.is_err());
    let mut ping = Vec::new();
    assert_eq!(write_frame(&mut ping, &Frame::Ping(7)).await.expect("written"), 9);
    assert!(matches!(read_frame(&mut ping.as_slice()).await, Ok((Frame::Ping(7), 9))));
    assert!(read_frame(&mut [0xff; 64].as_slice()).await.is_err(), "a length beyond all bounds");
}
