/**
 * The host-gw backend: no tunnel, each peer is the gateway to its subnet. All hosts are on one link, and their addresses are
 * what they say.
 */

import type { Family } from '../address/ip.ts'
import { ConfigError, type NetworkConfig } from '../config/network-config.ts'
import type { Lease } from '../lease/lease.ts'
import { type Backend, FAMILY_NAMES, familiesOf, type HostFacts, NOTHING, type Verdict } from './backend.ts'
import { requireAddress, scopeOf } from './links.ts'
import { routeTo } from './routes.ts'

/** flannel's words. */
const NAT =
  "your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not supported by host-gw backend"

export function hostGw(config: NetworkConfig, host: HostFacts): Backend {
  const families = familiesOf(config.ranges)
  for (const family of families) requireNoNat(family, host)
  const { name, mtu } = host.external
  return {
    type: 'host-gw',
    leaseType: 'host-gw',
    mac: {},
    mtu,
    scope: scopeOf(host, config),
    needsUnderlay: false,
    advertised: {},
    judge: (lease) => judgeReachable(lease, families),
    own: () => NOTHING,
    peer({ subnets, publicIps }) {
      const entries = families.flatMap((family) => {
        const [subnet, publicIp] = [subnets[family], publicIps[family]]
        return subnet === undefined || publicIp === undefined ? [] : [routeTo(subnet, name, publicIp)]
      })
      return { entries, answers: [] }
    },
  }
}

/** @throws {ConfigError} */
function requireNoNat(family: Family, host: HostFacts): void {
  const { local, publicIp } = requireAddress(family, host, 'host-gw')
  if (local !== publicIp) throw new ConfigError(family === 'inet' ? 'PublicIP' : 'PublicIPv6', publicIp, NAT)
}

/** For a backend whose peers have no data: a subnet and an address in a family of ours are enough, and nothing is claimed. */
export function judgeReachable({ subnets, publicIps }: Lease, families: readonly Family[]): Verdict {
  const usable = families.some((family) => subnets[family] !== undefined && publicIps[family] !== undefined)
  if (usable) return { claims: [] }
  return { refused: families.map((family) => `it has no ${FAMILY_NAMES[family]} subnet`).join(', ') }
}
