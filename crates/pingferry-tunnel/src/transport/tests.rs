//! Both ends on loopback.

use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A server's endpoint, and the roots that trust it.
fn server(name: &str) -> (Endpoint, RootCertStore) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.into()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let (endpoint, _) = endpoint(loopback(), Some(server_config(vec![cert.der().clone()], key).unwrap())).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    (endpoint, roots)
}

/// Dials the server, and returns both ends of the connection.
async fn connect(server: &Endpoint, roots: RootCertStore) -> Result<(quinn::Connection, quinn::Connection), String> {
    let (client, _) = endpoint(loopback(), None).unwrap();
    let dial = client.connect_with(client_config(roots).unwrap(), server.local_addr().unwrap(), DEFAULT_SERVER_NAME);
    let dial = async { dial.unwrap().await.map_err(|error| error.to_string()) };
    let accept = async { server.accept().await.unwrap().await.map_err(|error| error.to_string()) };
    tokio::try_join!(dial, accept)
}

#[tokio::test]
async fn a_whole_packet_fits_from_the_start_in_both_directions() {
    let (server, roots) = server(DEFAULT_SERVER_NAME);
    let (near, far) = connect(&server, roots).await.unwrap();
    // The smallest MTU of IPv6 and a byte for the type.
    assert!(near.max_datagram_size().unwrap() >= 1281);
    assert!(far.max_datagram_size().unwrap() >= 1281);
    near.send_datagram(vec![7; 1281].into()).unwrap();
    assert_eq!(far.read_datagram().await.unwrap(), vec![7; 1281]);
}

#[tokio::test]
async fn an_edge_with_another_name_or_authority_is_not_trusted() {
    let (other_name, roots) = server("edge.example");
    assert!(connect(&other_name, roots).await.unwrap_err().contains("certificate"));
    let (right_name, _) = server(DEFAULT_SERVER_NAME);
    let (_, other_roots) = server(DEFAULT_SERVER_NAME);
    assert!(connect(&right_name, other_roots).await.unwrap_err().contains("certificate"));
}

#[tokio::test]
async fn a_connector_may_open_one_stream_and_an_edge_only_some() {
    let (server, roots) = server(DEFAULT_SERVER_NAME);
    let (near, far) = connect(&server, roots).await.unwrap();
    let _control = near.open_bi().await.unwrap();
    let no_second = tokio::time::timeout(Duration::from_millis(50), near.open_bi()).await;
    assert!(no_second.is_err(), "the second stream is not allowed");
    assert!(tokio::time::timeout(Duration::from_millis(50), far.open_uni()).await.is_err());
    let _refused = far.open_bi().await.unwrap();
}
