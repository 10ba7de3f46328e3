/**
 * The vxlan backend: a link for each family, and for each peer what leads a packet to it.
 *
 * It has had three forms in flannel. First the kernel learned and flooded. From 0.5 to 0.8 the whole network was
 * routed into the link, FDB entries came from the registry, and the agent answered the kernel's L3 misses with the
 * MAC of the VTEP: few routes, but a first packet that waits for the agent, and in flannel's making a network that
 * died with it, because the answers aged. From 0.9 on every peer has a route, a neighbour and an FDB entry, and
 * nothing is asked. Here the last is the default and the second is `"L3Miss": true`, with answers that stay.
 *
 * The wire is the same in all of them: outer UDP to the peer's public IP, inner destination MAC that of its VTEP. As in
 * flannel, each family travels in its own: IPv4 through `flannel.<VNI>` in outer IPv4, IPv6 through `flannel-v6.<VNI>` in
 * outer IPv6.
 */

import { createHash } from 'node:crypto'
import { AddressError, FAMILIES, type Family, familyBits, type Ip, type PerFamily } from '../address/ip.ts'
import { isGroupMac, localMac, type Mac, parseMac, ZERO_MAC } from '../address/mac.ts'
import { type Prefix, prefixBase } from '../address/prefix.ts'
import { ConfigError, type NetworkConfig } from '../config/network-config.ts'
import type { Claim, Lease } from '../lease/lease.ts'
import type { Answer, Entry, Link, Share } from '../state.ts'
import { type Backend, FAMILY_NAMES, type HostFacts, NOTHING, type Verdict } from './backend.ts'
import { DirectPeers } from './direct.ts'
import { requireAddress, scopeOf } from './links.ts'
import { routeTo } from './routes.ts'
import { readSettings, type VxlanSettings } from './vxlan-settings.ts'

/** UDP 8, VXLAN 8, inner Ethernet 14, and the outer IP header; the least MTU of a link that carries the family. */
const SHAPES = {
  inet: {
    prefix: 'flannel.',
    overhead: 30 + 20,
    leastMtu: 68,
    data: 'BackendData',
    group: 'Group',
    exampleGroup: '239.1.1.1',
  },
  inet6: {
    prefix: 'flannel-v6.',
    overhead: 30 + 40,
    leastMtu: 1280,
    data: 'BackendV6Data',
    group: 'GroupV6',
    exampleGroup: 'ff05::1',
  },
} as const satisfies Record<Family, unknown>
/** How often the kernel tells of one miss, a second apart, before it gives the address up. flannel 0.5's value. */
const APP_PROBES = 3

/** BackendData and BackendV6Data, exactly as flannel writes them; 0.5 has no VNI, and no reader looks at it. */
interface VxlanData {
  readonly VNI: number
  readonly VtepMAC: string
}

/** Our end of the tunnels of one family. */
interface Vtep {
  readonly family: Family
  readonly network: Prefix
  readonly link: Link
  readonly mac: Mac
}

export function vxlan(config: NetworkConfig, host: HostFacts): Backend {
  const settings = readSettings(config, host)
  const vteps = FAMILIES.flatMap((family) => {
    const network = config.ranges[family]?.network
    return network === undefined ? [] : [makeVtep(family, network, settings, host)]
  })
  const names = vteps.map(({ link }) => link.name)
  const direct = new DirectPeers(settings.directRouting ? host : undefined)
  const mac = perFamily(vteps, (vtep) => vtep.mac)
  return {
    type: 'vxlan',
    leaseType: 'vxlan',
    mac,
    mtu: Math.min(...vteps.map(({ link }) => link.mtu)),
    scope: {
      ...scopeOf(host, config, names),
      onDemand: new Set(settings.l3Miss ? names : []),
      fdbOnDemand: new Set(settings.l2Miss ? names : []),
      checksums: settings.txChecksum !== undefined,
    },
    needsUnderlay: settings.directRouting,
    advertised: perFamily(vteps, (vtep) => ({ VNI: settings.vni, VtepMAC: vtep.mac }) satisfies VxlanData),
    judge: (lease) => judge(lease, vteps),
    own: (lease) => joinShares(vteps.map((vtep) => ownShare(vtep, lease, settings))),
    peer: (lease) => joinShares(vteps.map((vtep) => peerShare(vtep, lease, settings, direct))),
  }
}

/** @throws {ConfigError} when the external interface does not carry the family. */
function makeVtep(family: Family, network: Prefix, settings: VxlanSettings, host: HostFacts): Vtep {
  const { prefix, overhead, leastMtu } = SHAPES[family]
  const { vni, port, outerMtu, learning, gbp, l3Miss, l2Miss, txChecksum } = settings
  const { external } = host
  const { local, publicIp } = requireAddress(family, host, 'vxlan')
  const mtu = outerMtu - overhead
  if (mtu < leastMtu) {
    const problem = `vxlan takes ${overhead} bytes of it and ${FAMILY_NAMES[family]} needs ${leastMtu}`
    throw new ConfigError('Backend.MTU', outerMtu, problem)
  }
  const name = `${prefix}${vni}`
  const mac = host.links.get(name)?.mac ?? vtepMac(name, publicIp)
  const link: Link = {
    kind: 'link',
    name,
    mac,
    mtu,
    up: true,
    appProbes: { [family]: l3Miss ? APP_PROBES : 0 },
    txChecksum,
    tunnel: {
      type: 'vxlan',
      vni,
      port,
      local,
      lower: external.index,
      group: settings.groups?.[family],
      learning,
      gbp,
      l2Miss,
    },
  }
  return { family, network, link, mac }
}

function ownShare(
  { family, network, link }: Vtep,
  { subnets }: Lease,
  { l3Miss, groups }: VxlanSettings,
): Share {
  const entries: Entry[] = [link]
  const subnet = subnets[family]
  if (subnet !== undefined) {
    entries.push({ kind: 'address', link: link.name, ip: prefixBase(subnet), length: familyBits(family) })
  }
  if (l3Miss) entries.push(routeTo(network, link.name, undefined))
  const group = groups?.[family]
  // The kernel makes it with the link: whoever is not known is asked for there.
  if (group !== undefined) entries.push({ kind: 'fdb', link: link.name, mac: ZERO_MAC, destination: group })
  return { entries, answers: [] }
}

/** Nothing where the peer has no part in the family. */
function peerShare(
  { family, link: { name } }: Vtep,
  lease: Lease,
  { l3Miss, l2Miss, groups }: VxlanSettings,
  direct: DirectPeers,
): Share {
  const subnet = lease.subnets[family]
  const destination = lease.publicIps[family]
  const data = lease.backendData[family]
  if (subnet === undefined || destination === undefined || data === undefined) return NOTHING
  const mac = readMac(family, data)
  const route = direct.routeTo(subnet, destination)
  if (route !== undefined) return { entries: [route], answers: [] }
  const ip = prefixBase(subnet)
  if (groups !== undefined) return { entries: [routeTo(subnet, name, ip)], answers: [] }
  if (l2Miss) return { entries: [], answers: [{ link: name, subnet, mac, destination }] }
  const fdb: Entry = { kind: 'fdb', link: name, mac, destination }
  if (l3Miss) return { entries: [fdb], answers: [{ link: name, subnet, mac, destination: undefined }] }
  const neighbour: Entry = { kind: 'neighbour', link: name, ip, mac, state: 'permanent' }
  return { entries: [fdb, neighbour, routeTo(subnet, name, ip)], answers: [] }
}

function joinShares(shares: readonly Share[]): Share {
  const [first = NOTHING, ...rest] = shares
  if (rest.length === 0) return first
  const entries: Entry[] = shares.flatMap((share) => share.entries)
  const answers: Answer[] = shares.flatMap((share) => share.answers)
  return { entries, answers }
}

function perFamily<T>(vteps: readonly Vtep[], value: (vtep: Vtep) => T): PerFamily<T> {
  return Object.fromEntries(vteps.map((vtep) => [vtep.family, value(vtep)]))
}

/**
 * The MAC of a link that does not exist yet. Always the same for the same host and link, so that a reboot, or a link
 * that was lost while the agent was away, does not change what peers know.
 */
function vtepMac(name: string, publicIp: Ip): Mac {
  return localMac(createHash('sha256').update(`${name} ${publicIp}`).digest().subarray(0, 6))
}

/**
 * A lease is good for each family in which it has a subnet, a public IP and data; data that is wrong spoils all of it. A
 * MAC stands for one host: with another public IP it would take the other host's packets.
 */
function judge(lease: Lease, vteps: readonly Vtep[]): Verdict {
  const claims: Claim[] = []
  const lacks: string[] = []
  for (const { family, mac: ownMac } of vteps) {
    const name = FAMILY_NAMES[family]
    const publicIp = lease.publicIps[family]
    const data = lease.backendData[family]
    if (lease.subnets[family] === undefined || publicIp === undefined) lacks.push(`it has no ${name} subnet`)
    else if (data === undefined) lacks.push(`it has no ${SHAPES[family].data}`)
    else {
      try {
        const mac = readMac(family, data)
        if (mac === ownMac) return { refused: `VtepMAC ${mac} is our own` }
        claims.push({ kind: family === 'inet' ? 'VtepMAC' : 'IPv6 VtepMAC', name: mac, value: publicIp })
      } catch (error) {
        if (error instanceof AddressError) return { refused: error.message }
        throw error
      }
    }
  }
  return claims.length > 0 ? { claims } : { refused: lacks.join(', ') }
}

/** @throws {AddressError} unless the data has a MAC that can be a host's. */
function readMac(family: Family, data: unknown): Mac {
  const text = typeof data === 'object' && data !== null && 'VtepMAC' in data ? data.VtepMAC : undefined
  if (typeof text !== 'string') {
    throw new AddressError(`${SHAPES[family].data} ${JSON.stringify(data)} has no VtepMAC`)
  }
  const mac = parseMac(text)
  if (mac === ZERO_MAC || isGroupMac(mac)) throw new AddressError(`VtepMAC ${mac} is not a unicast address`)
  return mac
}
