//! gRPC with certificates on both ends (tonic): no broker, and two hops less than the others.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use prost::Message;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{file, serve};
use crate::Failure;
use crate::load::Call;

const PATH: &str = "/peer.Peer/Echo";

#[derive(Clone, PartialEq, Message)]
struct Echo {
    #[prost(string, tag = "1")]
    text: String,
}

/// What a compiler of interface files would write.
#[derive(Clone)]
struct Peer;

impl UnaryService<Echo> for Peer {
    type Response = Echo;
    type Future = Ready<Result<Response<Echo>, Status>>;

    fn call(&mut self, request: Request<Echo>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl Service<http::Request<Body>> for Peer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let codec = ProstCodec::<Echo, Echo>::default();
            Ok(tonic::server::Grpc::new(codec).unary(Peer, request).await)
        })
    }
}

impl NamedService for Peer {
    const NAME: &'static str = "peer.Peer";
}

pub(super) struct Calls(Channel);

fn identity(name: &str) -> Result<Identity, Failure> {
    let read =
        |kind| std::fs::read_to_string(file(&format!("{name}.{kind}"))?).map_err(Failure::from);
    Ok(Identity::from_pem(read("pem")?, read("key")?))
}

pub(super) async fn start() -> Result<Calls, Failure> {
    let ca = Certificate::from_pem(std::fs::read_to_string(file("ca.pem")?)?);
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let tls = ServerTlsConfig::new().identity(identity("server")?).client_ca_root(ca.clone());
    serve(async move |serving| {
        let incoming = TcpIncoming::from(TcpListener::from_std(listener)?).with_nodelay(Some(true));
        let server = Server::builder().tls_config(tls)?.add_service(Peer);
        let _ = serving.send(());
        Ok(server.serve_with_incoming(incoming).await?)
    })
    .await?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(ca)
        .identity(identity("client")?)
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?;
    Ok(Calls(endpoint.tls_config(tls)?.tcp_nodelay(true).connect().await?))
}

impl Call for Calls {
    async fn call(&self, text: &str) -> Result<String, Failure> {
        let mut client = tonic::client::Grpc::new(self.0.clone());
        client.ready().await?;
        let codec = ProstCodec::<Echo, Echo>::default();
        let request = Request::new(Echo { text: text.to_owned() });
        let answer = client.unary(request, PathAndQuery::from_static(PATH), codec).await?;
        Ok(answer.into_inner().text)
    }
}
