/** The alloc backend: a lease, and nothing that leads to the others'. */

import type { NetworkConfig } from '../config/network-config.ts'
import { type Backend, type HostFacts, NOTHING } from './backend.ts'
import { scopeOf } from './links.ts'

export function alloc(config: NetworkConfig, host: HostFacts): Backend {
  return {
    type: 'alloc',
    leaseType: '',
    mac: {},
    mtu: host.external.mtu,
    scope: scopeOf(host, config),
    needsUnderlay: false,
    advertised: {},
    judge: () => ({ claims: [] }),
    own: () => NOTHING,
    peer: () => NOTHING,
  }
}
