//! What GStreamer knows of an RTSP client and has no bindings for: this asks the C library.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::net::IpAddr;

use gstreamer_rtsp_server as rtsp_server;

use gstreamer::glib::translate::{ToGlibPtr, from_glib_none};
use rtsp_server::ffi::gst_rtsp_client_get_connection;
use rtsp_server::gio::prelude::TlsConnectionExt;
use rtsp_server::gio::{self, Socket};
use rtsp_server::gst_rtsp::RTSPAuthCredential;
use rtsp_server::gst_rtsp::ffi::{
    GstRTSPAuthParam, gst_rtsp_connection_get_ip, gst_rtsp_connection_get_read_socket, gst_rtsp_connection_get_tls,
};

/// The client's address and its socket; `None` for a client without a connection. Only for the thread that accepts it, before
/// anything else knows the client: closing it takes both away.
pub(super) fn peer(client: &rtsp_server::RTSPClient) -> Option<(IpAddr, Socket)> {
    // SAFETY: The client is alive as long as its reference, its connection as long as the client; nothing else closes it
    // yet. The text and the socket belong to the connection: the text is copied, the socket gets a reference of its own.
    // Null pointers are looked for before each use.
    unsafe {
        let connection = gst_rtsp_client_get_connection(client.to_glib_none().0);
        if connection.is_null() {
            return None;
        }
        let (ip, socket) = (gst_rtsp_connection_get_ip(connection), gst_rtsp_connection_get_read_socket(connection));
        if ip.is_null() || socket.is_null() {
            return None;
        }
        let address = parse(CStr::from_ptr(ip).to_str().ok()?)?;
        Some((address, from_glib_none(socket)))
    }
}

/// Takes the certificate authorities from the TLS connection of a client that connects, which the server does not ask for a
/// certificate. GLib gives each connection a copy of all that the system trusts: megabytes, and milliseconds.
pub(super) fn drop_authorities(context: &rtsp_server::RTSPContext) {
    // SAFETY: The context is alive as long as its reference, and so is the connection in it, which nothing else uses yet.
    // Null pointers are looked for. The TLS connection belongs to it, and gets a reference of its own.
    let tls: gio::TlsConnection = unsafe {
        let connection = (*context.to_glib_none().0).conn;
        if connection.is_null() {
            return;
        }
        let tls = gst_rtsp_connection_get_tls(connection, std::ptr::null_mut());
        if tls.is_null() {
            return;
        }
        from_glib_none(tls)
    };
    tls.set_database(gio::TlsDatabase::NONE);
}

/// A parameter of an `Authorization` header, as `username` of a digest's.
pub(super) fn parameter(credential: &RTSPAuthCredential, name: &str) -> Option<String> {
    let params = credential.params();
    params.iter().find_map(|param| {
        let param: *const GstRTSPAuthParam = param.to_glib_none().0;
        // SAFETY: The parameter is alive as long as `params`. Its texts belong to it and end with a zero, or are null, which
        // is looked for; the one that is wanted is copied.
        unsafe {
            let ((found, value), text) = (((*param).name, (*param).value), |text| CStr::from_ptr(text).to_str());
            match !found.is_null() && !value.is_null() && text(found) == Ok(name) {
                true => text(value).ok().map(String::from),
                false => None,
            }
        }
    })
}

/// GLib writes the network interface behind a link-local address, as in `fe80::1%eth0`.
fn parse(text: &str) -> Option<IpAddr> {
    let address = text.split('%').next()?.parse::<IpAddr>().ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_glib_writes_them() {
        for (text, address) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("box.local", None),
            ("", None),
        ] {
            assert_eq!(parse(text), address.map(|address| address.parse().unwrap()), "{text}");
        }
    }
}
