//! A member that sends datagrams back, with its name in those of loadgen. Called by `origin`.

use weir_core::rt::{self, Arrival, SendBuf, UdpSocket};
use weir_core::time::clock::mono;

use crate::datagram;
use crate::origin_member::Member;

/// Answers until the socket fails or the member is killed.
pub(crate) async fn serve(member: &Member, socket: &UdpSocket) {
    while let Ok(arrival) = socket.recv().await {
        let Arrival::Datagram(datagram) = arrival else { continue };
        let delay = member.draw_delay();
        if !delay.is_zero() {
            rt::sleep_exact(mono().plus(delay)).await;
        }
        if datagram.truncated || member.happens(member.spec.error_rate) {
            continue;
        }
        let mut answer = SendBuf::new();
        answer.extend_from_slice(&datagram.data);
        datagram::sign(&mut answer, &member.spec.name);
        member.stats.requests.add(1);
        socket.send(answer, datagram.peer, Some(datagram.local));
    }
}
