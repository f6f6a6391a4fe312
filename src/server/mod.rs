use crate::service::view::View;
use std::net::SocketAddr;
use std::sync::Arc;
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServerError(pub String);
pub struct HttpServer(SocketAddr);
pub struct Bound(SocketAddr);
impl HttpServer {
    pub fn bind(a: SocketAddr) -> Result<Bound, ServerError> {
        Ok(Bound(a))
    }
    pub fn address(&self) -> SocketAddr {
        self.0
    }
}
impl Bound {
    pub fn serve(self, _v: Arc<View>) -> Result<HttpServer, ServerError> {
        Ok(HttpServer(self.0))
    }
}
