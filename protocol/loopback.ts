// Which host names are this machine's own, whom no other machine can call by them.

/** @param host as in a flag or a URL: a name, or an IP address with or without brackets */
export function isLoopback(host: string): boolean {
  return host.toLowerCase() === 'localhost' || /^(\[::1\]|::1)$/.test(host) || /^127(\.\d{1,3}){3}$/.test(host);
}
