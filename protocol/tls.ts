// TLS between two processes, as values: what a side shows and whom it trusts, and a failed handshake in words. Who reads the files and
// who shakes hands is elsewhere.

/** What one side of TLS connections has, in PEM. */
export interface Tls {
  /** Its certificate, with what leads to the authority, and its key; null: it can call, and not be called. */
  readonly identity: { readonly cert: string; readonly key: string } | null;
  /** Certificates that are trusted in place of those that Node trusts, an authority's or a server's own; null: Node's. */
  readonly ca: string | null;
  /** Who calls it must show a certificate of this authority, or this one; null: nobody must show any. */
  readonly clientCa: string | null;
}

export interface TlsFault {
  /** Continues the name of the other side: "the coordinator at ...: its certificate has expired". */
  readonly what: string;
  readonly remedy: string;
}

const UNTRUSTED: ReadonlySet<string> = new Set([
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'CERT_SIGNATURE_FAILURE',
  'CERT_UNTRUSTED',
  'CERT_REJECTED',
  'INVALID_CA',
]);

/** Of a call over TLS that failed: what Node's or OpenSSL's `code` says of the other side; null when it says nothing about TLS. */
export function tlsFault(code: string, detail: string): TlsFault | null {
  if (UNTRUSTED.has(code)) {
    return {
      what: `no authority that is trusted here signed its certificate (${detail})`,
      remedy: 'Give --tls-ca the certificate of the authority that signed it, or that certificate itself.',
    };
  }
  switch (code) {
    case 'CERT_HAS_EXPIRED':
      return { what: 'its certificate has expired', remedy: 'Renew the certificate there, and start it again.' };
    case 'CERT_NOT_YET_VALID':
      return {
        what: 'its certificate is not valid yet',
        remedy: 'Compare the clocks of the two machines, and the dates of the certificate.',
      };
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return {
        what: `its certificate is for other names: ${detail}`,
        remedy:
          'Use a certificate whose subjectAltName has that name or IP address, or the same certificate (--tls-cert, --tls-key) on both sides.',
      };
    case 'EPROTO':
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return {
        what: 'what answers there does not speak TLS',
        remedy: 'Give its address with http:// in place of https://, or start it with --tls-cert and --tls-key.',
      };
    default:
      return null;
  }
}

/** Of a call without TLS: what it means that the other side, which speaks TLS, closed the connection. */
export const NEEDS_TLS: TlsFault = {
  what: 'it speaks TLS, and was called without',
  remedy: 'Give its address with https://, and --tls-ca where its certificate is not signed by a public authority.',
};
