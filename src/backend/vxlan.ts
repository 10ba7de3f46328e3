/**
 * The vxlan backend: one `flannel.<VNI>` link, and for each peer what leads a packet to it.
 *
 * It has had three forms in flannel. First the kernel learned and flooded. From 0.5 to 0.8 the whole network was
 * routed into the link, FDB entries came from the registry, and the agent answered the kernel's L3 misses with the
 * MAC of the VTEP: few routes, but a first packet that waits for the agent, and in flannel's making a network that
 * died with it, because the answers aged. From 0.9 on every peer has a route, a neighbour and an FDB entry, and
 * nothing is asked. Here the last is the default and the second is `"L3Miss": true`, with answers that stay.
 *
 * The wire is the same in all of them: outer UDP to the peer's public IP, inner destination MAC that of its VTEP.
 */

import { createHash } from 'node:crypto'
import { AddressError, type Ip } from '../address/ip.ts'
import { isGroupMac, localMac, type Mac, parseMac, ZERO_MAC } from '../address/mac.ts'
import { type Prefix, prefixBase, prefixContains } from '../address/prefix.ts'
import { ConfigError, type NetworkConfig } from '../config/network-config.ts'
import type { Lease } from '../lease/lease.ts'
import { type Entry, type Link, MAIN_TABLE, PROTOCOL, type Route } from '../state.ts'
import type { Backend, HostFacts, LinkFacts, Verdict } from './backend.ts'

/** Outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14. */
const OVERHEAD = 50
/** The kernel's own default, which flannel's `Port: 0` means; not IANA's 4789. */
const DEFAULT_PORT = 8472
/** How often the kernel tells of one miss, a second apart, before it gives the address up. flannel 0.5's value. */
const APP_PROBES = 3

/** BackendData, exactly as flannel writes it; 0.5 has no VNI, and no reader looks at it. */
interface VxlanData {
  readonly VNI: number
  readonly VtepMAC: string
}

interface VxlanSettings {
  readonly vni: number
  readonly port: number
  readonly mtu: number
  readonly learning: boolean
  readonly gbp: boolean
  readonly l3Miss: boolean
}

export function vxlan(config: NetworkConfig, host: HostFacts): Backend {
  const settings = readSettings(config, host)
  const name = `flannel.${settings.vni}`
  const { network, local, publicIp } = requireIpv4(config, host)
  const mac = host.links.get(name)?.mac ?? vtepMac(name, publicIp)
  const link: Link = {
    kind: 'link',
    name,
    mac,
    mtu: settings.mtu,
    up: true,
    appProbes: settings.l3Miss ? APP_PROBES : 0,
    vxlan: {
      vni: settings.vni,
      port: settings.port,
      local,
      lower: host.external.index,
      group: undefined,
      learning: settings.learning,
      gbp: settings.gbp,
    },
  }
  return {
    type: 'vxlan',
    mac,
    mtu: settings.mtu,
    scope: {
      links: new Set([name, ...leftovers(host, name, network)]),
      onDemand: new Set(settings.l3Miss ? [name] : []),
      networks: [network],
    },
    advertised: { inet: { VNI: settings.vni, VtepMAC: mac } satisfies VxlanData },
    judge: (lease) => judge(lease, mac),
    own(lease) {
      const entries: Entry[] = [link]
      const { inet } = lease.subnets
      if (inet !== undefined) entries.push({ kind: 'address', link: name, ip: prefixBase(inet), length: 32 })
      if (settings.l3Miss) entries.push(routeTo(network, name, undefined))
      return { entries, answers: [] }
    },
    peer(lease) {
      const subnet = lease.subnets.inet
      const destination = lease.publicIps.inet
      if (subnet === undefined || destination === undefined) return { entries: [], answers: [] }
      const peerMac = readMac(lease.backendData.inet)
      const fdb: Entry = { kind: 'fdb', link: name, mac: peerMac, destination }
      if (settings.l3Miss) return { entries: [fdb], answers: [{ link: name, subnet, mac: peerMac }] }
      const ip = prefixBase(subnet)
      const neighbour: Entry = { kind: 'neighbour', link: name, ip, mac: peerMac, state: 'permanent' }
      return { entries: [fdb, neighbour, routeTo(subnet, name, ip)], answers: [] }
    },
  }
}

function readSettings({ backend: { settings } }: NetworkConfig, host: HostFacts): VxlanSettings {
  const outer = settings.integer('MTU', { min: 0, max: 65535, default: 0 }) || host.external.mtu
  const mtu = outer - OVERHEAD
  if (mtu < 68)
    throw new ConfigError('Backend.MTU', outer, `vxlan takes ${OVERHEAD} bytes of it and IPv4 needs 68`)
  if (settings.boolean('DirectRouting', false)) {
    throw new ConfigError('Backend.DirectRouting', true, 'this version does not have it; leave it out')
  }
  return {
    vni: settings.integer('VNI', { min: 1, max: 2 ** 24 - 1, default: 1 }),
    port: settings.integer('Port', { min: 0, max: 65535, default: 0 }) || DEFAULT_PORT,
    mtu,
    learning: settings.boolean('Learning', false),
    gbp: settings.boolean('GBP', false),
    l3Miss: settings.boolean('L3Miss', false),
  }
}

/** IPv4 only, for now: an IPv6 family in the config is refused rather than ignored. */
function requireIpv4(config: NetworkConfig, host: HostFacts): { network: Prefix; local: Ip; publicIp: Ip } {
  if (config.ranges.inet6 !== undefined) {
    throw new ConfigError('EnableIPv6', true, 'the vxlan backend of this version carries IPv4 only')
  }
  const network = config.ranges.inet?.network
  const local = host.external.addresses.inet
  const publicIp = host.publicIps.inet
  if (network === undefined || local === undefined || publicIp === undefined) {
    throw new ConfigError(
      'EnableIPv4',
      undefined,
      `${host.external.name} must have an IPv4 address for vxlan`,
    )
  }
  return { network, local, publicIp }
}

/** Links that an earlier config with another VNI left behind: they have flannel's form and an address of our network. */
function leftovers(host: HostFacts, name: string, network: Prefix): string[] {
  const isLeftover = ([other, { addresses }]: [string, LinkFacts]): boolean =>
    other !== name && /^flannel\.[0-9]+$/.test(other) && addresses.some((ip) => prefixContains(network, ip))
  return [...host.links].filter(isLeftover).map(([other]) => other)
}

/**
 * The MAC of a link that does not exist yet. Always the same for the same host and link, so that a reboot, or a link
 * that was lost while the agent was away, does not change what peers know.
 */
function vtepMac(name: string, publicIp: Ip): Mac {
  return localMac(createHash('sha256').update(`${name} ${publicIp}`).digest().subarray(0, 6))
}

/** A MAC stands for one host: with another public IP it would take the other host's packets. */
function judge(lease: Lease, ownMac: Mac): Verdict {
  const publicIp = lease.publicIps.inet
  if (lease.subnets.inet === undefined || publicIp === undefined) return { refused: 'it has no IPv4 subnet' }
  try {
    const mac = readMac(lease.backendData.inet)
    if (mac === ownMac) return { refused: `VtepMAC ${mac} is our own` }
    return { claims: [{ name: ['VtepMAC', mac].join(' '), value: publicIp }] }
  } catch (error) {
    if (error instanceof AddressError) return { refused: error.message }
    throw error
  }
}

/** @throws {AddressError} unless the data has a MAC that can be a host's. */
function readMac(data: unknown): Mac {
  const text = typeof data === 'object' && data !== null && 'VtepMAC' in data ? data.VtepMAC : undefined
  if (typeof text !== 'string') throw new AddressError(`BackendData ${JSON.stringify(data)} has no VtepMAC`)
  const mac = parseMac(text)
  if (mac === ZERO_MAC || isGroupMac(mac)) throw new AddressError(`VtepMAC ${mac} is not a unicast address`)
  return mac
}

function routeTo(destination: Prefix, link: string, gateway: Ip | undefined): Route {
  return {
    kind: 'route',
    destination,
    table: MAIN_TABLE,
    metric: 0,
    link,
    gateway,
    nexthop: undefined,
    protocol: PROTOCOL,
  }
}
