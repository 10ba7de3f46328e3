/** The alloc backend: a lease, and nothing that leads to the others'. */

import type { NetworkConfig } from '../config/network-config.ts'
import { type Backend, FAMILIES, type HostFacts, NOTHING } from './backend.ts'
import { scopeLinks } from './links.ts'

export function alloc(config: NetworkConfig, host: HostFacts): Backend {
  const networks = FAMILIES.flatMap((family) => config.ranges[family]?.network ?? [])
  return {
    type: 'alloc',
    leaseType: '',
    mac: {},
    mtu: host.external.mtu,
    scope: {
      links: scopeLinks(host, [], networks),
      onDemand: new Set(),
      fdbOnDemand: new Set(),
      underlay: host.external.name,
      networks,
    },
    needsUnderlay: false,
    advertised: {},
    judge: () => ({ claims: [] }),
    own: () => NOTHING,
    peer: () => NOTHING,
  }
}
