//! Why the edge did not forward a packet.

pingferry_proto::drop_reasons! {
    /// Why the edge did not forward a packet. Each dropped packet has exactly one reason.
    enum DropReason {
        /// Not a well-formed IP packet with a well-formed ICMP header.
        Malformed => "malformed",

        // Of requests.
        /// What a kernel and its link tell each other by themselves, such as router solicitations.
        LinkControl => "link_control",
        /// No host can have the source address.
        InvalidSource => "invalid_source",
        /// Neither an echo request nor a later fragment of one.
        NotEchoRequest => "not_echo_request",
        /// No tunnel has the destination.
        NoPrefix => "no_prefix",
        /// A tunnel has the destination, but no connector of its serves it now.
        NobodyConnected => "nobody_connected",
        /// Larger than a datagram of its connection can be now.
        TooBig => "too_big",
        /// The queue of the connection is full.
        Congested => "congested",

        // Of what connectors send.
        /// A datagram before the connector has registered.
        Unregistered => "unregistered",
        /// A datagram of a type that an edge does not take.
        UnknownDatagram => "unknown_datagram",
        /// IPv4 options or IPv6 extension headers.
        Options => "options",
        /// Not ICMP.
        NotIcmp => "not_icmp",
        /// An ICMP message other than an echo reply and an error about an echo request.
        ForbiddenType => "forbidden_type",
        /// A fragment of an ICMP error.
        FragmentedError => "fragmented_error",
        /// The destination did not ask through this tunnel lately.
        NobodyAsked => "nobody_asked",
        /// A reply from an address that is not in a prefix of the tunnel, or an error from one that no host can have.
        ForeignSource => "foreign_source",
        /// An error about something else than a request that went through this tunnel lately.
        ForeignQuote => "foreign_quote",
        /// Spans that are too large, or of a trace that this edge did not start.
        ForeignSpans => "foreign_spans",
        /// The TUN device did not take the packet.
        DeviceFull => "device_full",
    }

    /// The number of dropped packets, by reason.
    struct Drops;
}
