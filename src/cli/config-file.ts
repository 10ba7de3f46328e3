/** A network config in a file, checked as far as it can be without a host. */

import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import type { Ip } from '../address/ip.ts'
import type { HostFacts } from '../backend/backend.ts'
import { checkBackend } from '../backend/table.ts'
import { parseNetworkConfig } from '../config/network-config.ts'

/** The text of the file; `-` is standard input. @throws {ConfigError} which names the field. */
export async function readConfigFile(file: string): Promise<string> {
  const config = file === '-' ? await text(process.stdin) : await readFile(file, 'utf8')
  checkBackend(parseNetworkConfig(config), TYPICAL_HOST)
  return config
}

/** The backend's settings are read by the backend, which wants a host: one that has everything (RFC 5737, RFC 3849). */
const TYPICAL_HOST: HostFacts = {
  external: {
    name: 'eth0',
    index: 1,
    mtu: 1500,
    addresses: { inet: '192.0.2.1' as Ip, inet6: '2001:db8::1' as Ip },
  },
  publicIps: { inet: '192.0.2.1' as Ip, inet6: '2001:db8::1' as Ip },
  links: new Map(),
  underlay: [],
}
