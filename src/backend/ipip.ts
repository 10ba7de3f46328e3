/**
 * The ipip backend: IPv4 in IPv4, 20 bytes of header. One link with no remote end: each packet goes to the gateway of
 * its route, which is the peer's public IP and "on" the link.
 */

import { prefixBase } from '../address/prefix.ts'
import { ConfigError, type NetworkConfig } from '../config/network-config.ts'
import type { Entry, Link } from '../state.ts'
import { type Backend, type HostFacts, NOTHING } from './backend.ts'
import { DirectPeers } from './direct.ts'
import { judgeReachable } from './host-gw.ts'
import { requireAddress, requireIpv4Alone, scopeOf } from './links.ts'
import { routeTo } from './routes.ts'

const NAME = 'flannel.ipip'
/** The outer IPv4 header. */
const OVERHEAD = 20
/** What IPv4 needs of a link. */
const LEAST_MTU = 68

export function ipip(config: NetworkConfig, host: HostFacts): Backend {
  const { external } = host
  const directRouting = config.backend.settings.boolean('DirectRouting', false)
  requireIpv4Alone(config, 'ipip')
  const { local } = requireAddress('inet', host, 'ipip')
  const mtu = external.mtu - OVERHEAD
  if (mtu < LEAST_MTU) {
    const problem = `MTU ${external.mtu} of iface ${external.name} is too small for ipip mode to work`
    throw new ConfigError('Backend.Type', 'ipip', problem)
  }
  const link: Link = {
    kind: 'link',
    name: NAME,
    mac: undefined,
    mtu,
    up: true,
    appProbes: {},
    tunnel: { type: 'ipip', local, remote: undefined },
  }
  const direct = new DirectPeers(directRouting ? host : undefined)
  return {
    type: 'ipip',
    leaseType: 'ipip',
    mac: {},
    mtu,
    scope: scopeOf(host, config, [NAME]),
    needsUnderlay: directRouting,
    advertised: {},
    judge: (lease) => judgeReachable(lease, ['inet']),
    own({ subnets: { inet } }) {
      const entries: Entry[] = [link]
      if (inet !== undefined) entries.push({ kind: 'address', link: NAME, ip: prefixBase(inet), length: 32 })
      return { entries, answers: [] }
    },
    peer({ subnets: { inet: subnet }, publicIps: { inet: publicIp } }) {
      if (subnet === undefined || publicIp === undefined) return NOTHING
      return {
        entries: [direct.routeTo(subnet, publicIp) ?? routeTo(subnet, NAME, publicIp)],
        answers: [],
      }
    },
  }
}
