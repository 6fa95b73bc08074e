//! Both ends against another implementation of Cap'n Proto RPC, that of the `capnp-rpc` crate.

use std::ops::Deref;
use std::rc::Rc;

use capnp::any_pointer;
use capnp::capability::{self, DispatchCallResult, FromClientHook, FromServer, Params, Promise, Results};
use capnp::private::capability::ClientHook;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::twoparty::VatNetwork;
use capnp_rpc::{RpcSystem, new_client};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::{LocalSet, spawn_local};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::layout::{Fields, Slot};
use super::schema::{
    PREFIX_EXCHANGE, REGISTER_CONNECTION, REGISTRATION_SERVER, UNREGISTER_CONNECTION, read_registered, write_registered,
};
use super::tests::stock_registration;
use super::*;

/// A capability of any interface.
struct Capability(capability::Client);

impl FromClientHook for Capability {
    fn new(hook: Box<dyn ClientHook>) -> Self {
        Self(capability::Client::new(hook))
    }

    fn into_client_hook(self) -> Box<dyn ClientHook> {
        self.0.hook
    }

    fn as_client_hook(&self) -> &dyn ClientHook {
        &*self.0.hook
    }
}

impl FromServer<()> for Capability {
    type Dispatch = StockEdge;

    fn from_server(_: Rc<()>) -> StockEdge {
        StockEdge
    }
}

/// An edge without the prefix interface.
#[derive(Clone)]
struct StockEdge;

impl Deref for StockEdge {
    type Target = ();

    fn deref(&self) -> &() {
        &()
    }
}

impl capability::Server for StockEdge {
    fn dispatch_call(
        self,
        interface: u64,
        method: u16,
        params: Params<any_pointer::Owned>,
        mut results: Results<any_pointer::Owned>,
    ) -> DispatchCallResult {
        let answer = match (interface, method) {
            (REGISTRATION_SERVER, REGISTER_CONNECTION) => {
                let registration = Registration::read(params.get().unwrap().get_as::<Fields<'_>>().unwrap());
                assert_eq!(registration.unwrap(), stock_registration());
                write_registered(results.get().init_as::<Slot<'_>>(), Ok(&ConnectionDetails::default()));
                Promise::ok(())
            }
            (REGISTRATION_SERVER, UNREGISTER_CONNECTION) => Promise::ok(()),
            _ => Promise::err(capnp::Error::unimplemented("no such method".into())),
        };
        DispatchCallResult::new(answer, false)
    }

    fn as_ptr(&self) -> usize {
        0
    }
}

type Ours<P> = RpcStream<P, ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// Our end on a stream, and the other implementation on its far end.
fn streams<P: Peer>(peer: P, side: Side) -> (Ours<P>, VatNetwork<impl futures::AsyncRead + Unpin>) {
    let (near, far) = duplex(1000);
    let ((read, write), (far_read, far_write)) = (split(near), split(far));
    let network = VatNetwork::new(far_read.compat(), far_write.compat_write(), side, Default::default());
    (RpcStream::new(peer, read, write), network)
}

#[tokio::test]
async fn a_client_registers_at_another_implementation() {
    let edge: Capability = new_client(());
    let (mut ours, network) = streams(Client::default(), Side::Server);
    let calls = async move {
        spawn_local(RpcSystem::new(Box::new(network), Some(edge.0)));
        ours.peer.register(&stock_registration());
        let registered = Answer::Registered(Ok(ConnectionDetails::default()));
        assert_eq!(ours.next().await.unwrap(), Some(registered));
        // An edge that is not pingferry's does not have this interface, and goes on.
        ours.peer.advertise(&["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(ours.next().await.unwrap(), Some(Answer::Advertised(None)));
        ours.peer.unregister();
        assert_eq!(ours.next().await.unwrap(), Some(Answer::Unregistered));
    };
    LocalSet::new().run_until(calls).await;
}

#[tokio::test]
async fn another_implementation_registers_at_a_server() {
    let (mut ours, network) = streams(Server::default(), Side::Client);
    let calls = async move {
        let mut rpc = RpcSystem::new(Box::new(network), None);
        let edge: Capability = rpc.bootstrap(Side::Server);
        spawn_local(rpc);
        spawn_local(async move {
            while let Ok(Some(request)) = ours.next().await {
                match request {
                    Request::Register(call, registration) => {
                        assert_eq!(*registration, stock_registration());
                        ours.peer.registered(call, Ok(&ConnectionDetails::default()));
                    }
                    Request::Unregister(call) | Request::UpdateConfiguration(call, _) => ours.peer.done(call),
                    Request::Advertise(call, prefixes) => ours.peer.accepted(call, &prefixes),
                }
            }
        });
        let new_call =
            |interface, method| edge.0.new_call::<any_pointer::Owned, any_pointer::Owned>(interface, method, None);
        let mut call = new_call(REGISTRATION_SERVER, REGISTER_CONNECTION);
        stock_registration().write(call.get().init_as::<Slot<'_>>());
        let response = call.send().promise.await.unwrap();
        let result = read_registered(response.get().unwrap().get_as::<Fields<'_>>().unwrap()).unwrap();
        assert_eq!(result, Ok(ConnectionDetails::default()));
        // The capability is known by now, so this call is addressed to the export and not to the answer.
        let mut call = new_call(REGISTRATION_SERVER, UNREGISTER_CONNECTION);
        _ = call.get().init_as::<Slot<'_>>().fields(0, 0);
        call.send().promise.await.unwrap();
        let unknown = new_call(PREFIX_EXCHANGE, 7).send().promise.await.err().unwrap();
        assert_eq!(unknown.kind, capnp::ErrorKind::Unimplemented);
    };
    LocalSet::new().run_until(calls).await;
}
