/**
 * Operations carried out: each becomes one or two netlink requests, and all of them few datagrams.
 *
 * What others may own is added with NLM_F_EXCL, so that a foreign route, address or nexthop with our key is an error in
 * the report and never replaced. On our own links neighbours and FDB entries are replaced as they come.
 */

import { ipFamily } from '../address/ip.ts'
import { ZERO_MAC } from '../address/mac.ts'
import { prefixBase, prefixFamily, prefixLength } from '../address/prefix.ts'
import { deleteAddress, IFA_F_NODAD, newAddress } from '../netlink/address.ts'
import type { Connection } from '../netlink/connection.ts'
import { deleteLink, IFF_UP, type Link as LinkMessage, newLink } from '../netlink/link.ts'
import { NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, type Request } from '../netlink/message.ts'
import { setAppProbes } from '../netlink/neighbour-table.ts'
import { deleteNeighbour, newNeighbour, NTF_SELF, NUD_PERMANENT } from '../netlink/neighbour.ts'
import { deleteNexthop, newNexthop } from '../netlink/nexthop.ts'
import {
  deleteRoute,
  newRoute,
  RT_SCOPE_LINK,
  RT_SCOPE_NOWHERE,
  RT_SCOPE_UNIVERSE,
  RTN_BLACKHOLE,
  RTN_UNICAST,
  RTNH_F_ONLINK,
} from '../netlink/route.ts'
import { AF_BRIDGE } from '../netlink/rtnetlink.ts'
import { type Failure, type Link, type Operation, PROTOCOL, type Route, type Tunnel } from '../state.ts'
import type { Checksums } from './checksums.ts'
import { compareTunnels, wrongProbes } from './diff.ts'
import { familyNumber } from './families.ts'
import type { WireguardDevices } from './wireguard.ts'

type Verb = Operation['verb']

/** Where operations are applied. */
export interface Links {
  /** The index of one of our links, or of the underlay. */
  readonly indexOf: (link: string) => number | undefined
  /** The link whose gateways are not "onlink": what is not on it is not reached over it. */
  readonly underlay: string | undefined
  readonly checksums: Checksums | undefined
  /** Undefined where a plan has no such links. */
  readonly wireguard?: WireguardDevices | undefined
}

/**
 * Applies the operations in the order given, and asks for more while the kernel works on some. A failed one stops no other;
 * each failure is returned.
 *
 * @param taken Gets each operation as it is taken.
 */
export async function applyOperations(
  connection: Connection,
  operations: Iterable<Operation>,
  links: Links,
  taken: Operation[],
): Promise<Failure[]> {
  const { wireguard } = links
  if (wireguard === undefined) return await applyToKernel(connection, operations, links, taken)
  const failures: Failure[] = []
  for (const run of runs(operations, taken)) {
    const [first] = run
    if (first?.entry.kind === 'peer') failures.push(...(await wireguard.apply(run)))
    else if (first !== undefined && isDevice(first)) {
      for (const operation of run)
        failures.push(...(await applyToDevice(connection, operation, links, wireguard)))
    } else failures.push(...(await applyToKernel(connection, run, links)))
  }
  return failures
}

/** Operations that come one after the other and go to the same place: there are few, since they come in their order. */
function runs(operations: Iterable<Operation>, taken: Operation[]): Operation[][] {
  const found: Operation[][] = []
  let last: string | undefined
  for (const operation of operations) {
    taken.push(operation)
    const place = isDevice(operation) ? 'device' : operation.entry.kind === 'peer' ? 'peer' : 'kernel'
    if (place === last) found.at(-1)?.push(operation)
    else found.push([operation])
    last = place
  }
  return found
}

/** A WireGuard link that is to be made or changed. It is removed as any other. */
function isDevice({ verb, entry }: Operation): boolean {
  return verb !== 'delete' && entry.kind === 'link' && entry.tunnel?.type === 'wireguard'
}

/** A WireGuard link is made empty; key and port are a change, which the next round finds. */
async function applyToDevice(
  connection: Connection,
  operation: Operation,
  links: Links,
  devices: WireguardDevices,
): Promise<Failure[]> {
  const { entry, actual } = operation
  try {
    if (entry.kind !== 'link') return []
    if (actual?.kind !== 'link') {
      await devices.create(entry.name, () => connection.request(addLink(entry)))
      return []
    }
    const failures = await applyToKernel(connection, [operation], links)
    await devices.configure(entry, actual)
    return failures
  } catch (error) {
    if (!(error instanceof Error)) throw error
    return [{ operation, error }]
  }
}

async function applyToKernel(
  connection: Connection,
  operations: Iterable<Operation>,
  { indexOf, underlay, checksums }: Links,
  taken: Operation[] = [],
): Promise<Failure[]> {
  const failures: Failure[] = []
  const owners: Operation[] = []
  const onLinks: Operation[] = []
  function* encode(): Generator<Request> {
    for (const operation of operations) {
      taken.push(operation)
      if (operation.entry.kind === 'link') onLinks.push(operation)
      const link = linkOf(operation)
      const index = link === undefined ? NO_LINK : indexOf(link)
      if (index === undefined) failures.push({ operation, error: new Error(`there is no link ${link}`) })
      else {
        for (const request of encodeOperation(operation, index, link !== underlay)) {
          owners.push(operation)
          yield request
        }
      }
    }
  }
  for (const [i, error] of await connection.batch(encode())) {
    const operation = owners[i]
    if (operation !== undefined) failures.push({ operation, error })
  }
  if (checksums === undefined) return failures
  for (const operation of onLinks) {
    const error = await switchChecksum(operation, indexOf, checksums)
    if (error !== undefined) failures.push({ operation, error })
  }
  return failures
}

/** Gives the error. A new link is told when it is there. */
async function switchChecksum(
  { verb, entry, actual }: Operation,
  indexOf: Links['indexOf'],
  checksums: Checksums,
): Promise<Error | undefined> {
  if (verb !== 'change' || entry.kind !== 'link' || actual?.kind !== 'link') return undefined
  const index = indexOf(entry.name)
  if (entry.txChecksum === undefined || entry.txChecksum === actual.txChecksum || index === undefined) {
    return undefined
  }
  try {
    await checksums.set(index, entry.txChecksum)
    return undefined
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

const NO_LINK = 0

/** The link that must exist; undefined for what needs none: a link that is to be made, a blackhole. */
function linkOf({ verb, entry }: Operation): string | undefined {
  if (entry.kind !== 'link') return entry.link
  return verb === 'add' ? undefined : entry.name
}

function encodeOperation({ verb, entry, actual }: Operation, ifindex: number, onlink: boolean): Request[] {
  switch (entry.kind) {
    case 'link':
      if (verb === 'delete') return [deleteLink(ifindex)]
      return actual?.kind === 'link' ? changeLink(entry, actual, ifindex) : [addLink(entry)]
    case 'address': {
      const { ip, length } = entry
      const address = {
        family: familyNumber(ipFamily(ip)),
        ifindex,
        local: ip,
        address: ip,
        prefixLength: length,
        // It is no other host's: the registry says so. Without the flag it could not be used for a second.
        flags: ipFamily(ip) === 'inet6' ? IFA_F_NODAD : 0,
      }
      return [verb === 'delete' ? deleteAddress(address) : newAddress(address, creation(verb))]
    }
    case 'nexthop': {
      if (verb === 'delete') return [deleteNexthop(entry.id)]
      const { id, gateway } = entry
      const family = familyNumber(ipFamily(gateway))
      const nexthop = { family, id, gateway, oif: ifindex, protocol: PROTOCOL, flags: RTNH_F_ONLINK }
      return [newNexthop(nexthop, creation(verb))]
    }
    case 'route':
      return [encodeRoute(verb, entry, ifindex, onlink)]
    case 'neighbour': {
      const neighbour = { family: familyNumber(ipFamily(entry.ip)), ifindex, destination: entry.ip }
      if (verb === 'delete') return [deleteNeighbour(neighbour)]
      const settled = { ...neighbour, mac: entry.mac, state: NUD_PERMANENT }
      return [newNeighbour(settled, NLM_F_CREATE | NLM_F_REPLACE)]
    }
    case 'fdb': {
      const fdb = { family: AF_BRIDGE, ifindex, mac: entry.mac, flags: NTF_SELF }
      // Without its destination: naming a wrong one answers 0 and does nothing.
      if (verb === 'delete') return [deleteNeighbour(fdb)]
      const settled = { ...fdb, destination: entry.destination, state: NUD_PERMANENT }
      // The entry for all that is unknown, of a group, is a list: what is in it cannot be replaced.
      const place = entry.mac === ZERO_MAC ? NLM_F_APPEND : NLM_F_REPLACE
      return [newNeighbour(settled, NLM_F_CREATE | place)]
    }
    case 'peer':
      return [] // is no matter of rtnetlink
    default:
      return entry satisfies never
  }
}

function creation(verb: 'add' | 'change'): number {
  return verb === 'add' ? NLM_F_CREATE | NLM_F_EXCL : NLM_F_REPLACE
}

/** A new link is made with all that can be said at once; its probes can be set when it has an index. */
function addLink({ name, mac, mtu, up, tunnel }: Link): Request {
  const flags = up ? IFF_UP : 0
  const link = { name, mac, mtu, flags, change: IFF_UP, txqlen: 0 }
  return newLink({ ...link, ...(tunnel && encodeTunnel(tunnel, 'new')) }, NLM_F_CREATE | NLM_F_EXCL)
}

/** Of a live link, only what can be changed. */
function encodeTunnel(tunnel: Tunnel, link: 'new' | 'live'): Partial<LinkMessage> {
  switch (tunnel.type) {
    case 'vxlan': {
      const { vni, port, local, lower, group, learning, gbp, l2Miss } = tunnel
      const live = { local, learning }
      return {
        kind: 'vxlan',
        vxlan: link === 'live' ? live : { ...live, vni, port, link: lower, group, gbp, l2miss: l2Miss },
      }
    }
    case 'ipip': {
      const { local, remote } = tunnel
      return { kind: 'ipip', ipip: { local, remote } }
    }
    case 'wireguard':
      return { kind: 'wireguard' }
    default:
      return tunnel satisfies never
  }
}

/**
 * Only what differs is said, because saying is doing: a MAC that is set, even to what it is, makes the kernel drop all
 * neighbours of the link. An MTU is refused beside vxlan attributes, so these have a request of their own.
 */
function changeLink(link: Link, actual: Link, index: number): Request[] {
  const requests: Request[] = []
  const mac = link.mac === actual.mac ? undefined : link.mac
  const mtu = link.mtu === actual.mtu ? undefined : link.mtu
  const change = link.up === actual.up ? 0 : IFF_UP
  if (mac !== undefined || mtu !== undefined || change !== 0) {
    requests.push(newLink({ index, mac, mtu, flags: link.up ? change : 0, change }, 0))
  }
  const isWireguard = link.tunnel?.type === 'wireguard'
  if (
    link.tunnel !== undefined &&
    !isWireguard &&
    compareTunnels(link.tunnel, actual.tunnel).live.length > 0
  ) {
    requests.push(newLink({ index, ...encodeTunnel(link.tunnel, 'live') }, 0))
  }
  for (const family of wrongProbes(link, actual)) {
    requests.push(setAppProbes(familyNumber(family), index, link.appProbes[family] ?? 0))
  }
  return requests
}

/** A route that names a nexthop object must name neither gateway nor link. */
function encodeRoute(verb: Verb, route: Route, ifindex: number, onlink: boolean): Request {
  const { destination, metric, gateway, link, nexthop, table, protocol } = route
  const identity = {
    family: familyNumber(prefixFamily(destination)),
    destination: prefixBase(destination),
    destinationLength: prefixLength(destination),
    priority: metric === 0 ? undefined : metric,
    table,
    protocol,
    type: link === undefined ? RTN_BLACKHOLE : RTN_UNICAST,
  }
  if (link === undefined) {
    return verb === 'delete'
      ? deleteRoute({ ...identity, scope: RT_SCOPE_NOWHERE })
      : newRoute(identity, creation(verb))
  }
  if (verb === 'delete') {
    return deleteRoute({
      ...identity,
      scope: RT_SCOPE_NOWHERE,
      ...(nexthop === undefined ? { oif: ifindex } : { nexthop }),
    })
  }
  if (nexthop !== undefined) return newRoute({ ...identity, nexthop }, creation(verb))
  const direct = { ...identity, oif: ifindex }
  return gateway === undefined
    ? newRoute({ ...direct, scope: RT_SCOPE_LINK }, creation(verb))
    : newRoute(
        { ...direct, gateway, scope: RT_SCOPE_UNIVERSE, flags: onlink ? RTNH_F_ONLINK : 0 },
        creation(verb),
      )
}
