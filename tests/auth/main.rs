//! Access control: every endpoint without credentials, as a viewer and as an operator, over HTTP, TLS and RTSP.
//! SECURITY.md lists the applicable points of OWASP ASVS with these tests.

#[path = "../common/mod.rs"]
mod common;

mod data;
mod fixture;
mod flood;
mod http;
mod network;
mod proxy;
mod users;
