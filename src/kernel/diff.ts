/**
 * The difference between what is desired and what the kernel holds, one key at a time, and the order of the steps.
 *
 * Pure: the same two states give the same operations whatever happened before, so start-up, a lease event, drift and
 * repair are one path.
 */

import { FAMILIES, type Family, ipFamily } from '../address/ip.ts'
import type {
  Entry,
  FdbEntry,
  Ipip,
  Kind,
  Link,
  Neighbour,
  Operation,
  Peer,
  Route,
  Tunnel,
  Vxlan,
  Wireguard,
} from '../state.ts'

/**
 * The step that leads one key from `actual` to `desired`; undefined when there is nothing to do.
 *
 * What cannot be changed in place is deleted; the next round then finds it absent and adds it.
 */
export function diffEntry(desired: Entry | undefined, actual: Entry | undefined): Operation | undefined {
  if (desired === actual) return undefined
  if (desired === undefined) {
    return actual && { verb: 'delete', entry: actual, why: 'not desired' }
  }
  if (actual === undefined) return { verb: 'add', entry: desired, why: 'missing' }
  const fixed =
    desired.kind === 'link' && actual.kind === 'link'
      ? compareTunnels(desired.tunnel, actual.tunnel).fixed
      : []
  if (fixed.length > 0) return { verb: 'delete', entry: actual, why: fixed.join(', ') }
  const changed = differences(desired, actual)
  if (changed.length === 0) return undefined
  if (blocksGateway(desired, actual)) {
    return { verb: 'delete', entry: actual, why: changed.join(', '), first: true }
  }
  return { verb: 'change', entry: desired, actual, why: changed.join(', ') }
}

/**
 * What comes before what, and why: an address and a route need their link up; a route may carry packets from the
 * moment it exists, so the FDB entry, the neighbour and the peer that it leads to are there before it, and the nexthop
 * that it names. Removal is the reverse; routes go before their nexthops also because the other way round is quadratic in the
 * kernel. All additions come before all removals, so that a subnet that moves is never without a route.
 */
const ORDER: Readonly<Record<Kind, number>> = {
  link: 0,
  address: 1,
  fdb: 2,
  neighbour: 3,
  peer: 4,
  nexthop: 5,
  route: 6,
}

/**
 * An IPv6 gateway on a link is refused, as a nexthop object too, while the way to it leads over another link. Ours is in
 * the subnet that the route is for.
 */
function blocksGateway(desired: Entry, actual: Entry): boolean {
  if (desired.kind !== 'route' || actual.kind !== 'route' || desired.gateway === undefined) return false
  return ipFamily(desired.gateway) === 'inet6' && desired.link !== actual.link
}

/** Buckets and not a sort: at a start there are hundreds of thousands. */
export function orderOperations(operations: readonly Operation[]): readonly Operation[] {
  if (operations.length < 2) return operations
  const ranks: Operation[][] = Array.from({ length: 1 + 2 * KINDS }, () => [])
  for (const operation of operations) ranks[rank(operation)]?.push(operation)
  return ranks.flat()
}

const KINDS = Object.keys(ORDER).length

function rank({ verb, entry, first = false }: Operation): number {
  if (first) return 0
  return verb === 'delete' ? 2 * KINDS - ORDER[entry.kind] : 1 + ORDER[entry.kind]
}

/** What differs and the kernel cannot change on a live link, and what it can. */
export function compareTunnels(
  desired: Tunnel | undefined,
  actual: Tunnel | undefined,
): { readonly fixed: readonly string[]; readonly live: readonly string[] } {
  switch (desired?.type) {
    case undefined:
      return { fixed: [], live: [] }
    case 'vxlan':
      if (actual?.type !== 'vxlan') break
      return ipFamily(desired.local) === ipFamily(actual.local)
        ? {
            fixed: compare<Vxlan>(desired, actual, ['vni', 'port', 'lower', 'group', 'gbp', 'l2Miss']),
            live: compare<Vxlan>(desired, actual, ['local', 'learning']),
          }
        : { fixed: compare<Vxlan>(desired, actual, ['local']), live: [] }
    case 'ipip':
      if (actual?.type !== 'ipip') break
      return {
        fixed: compare<Ipip>(desired, actual, ['remote']),
        live: compare<Ipip>(desired, actual, ['local']),
      }
    case 'wireguard':
      if (actual?.type !== 'wireguard') break
      return { fixed: [], live: compare<Wireguard>(desired, actual, ['publicKey', 'listenPort']) }
    default:
      return desired satisfies never
  }
  return { fixed: [`not a link of the kind ${desired.type}`], live: [] }
}

function differences(desired: Entry, actual: Entry): string[] {
  switch (desired.kind) {
    case 'link':
      return [
        ...compare<Link>(desired, actual as Link, ['mac', 'mtu', 'up']),
        ...(desired.txChecksum === undefined ? [] : compare<Link>(desired, actual as Link, ['txChecksum'])),
        ...wrongProbes(desired, actual as Link).map((family) => `appProbes of ${family}`),
        ...compareTunnels(desired.tunnel, (actual as Link).tunnel).live,
      ]
    case 'address':
      return []
    case 'nexthop':
      return compare(desired, actual as typeof desired, ['link', 'gateway'])
    case 'route':
      return compare<Route>(desired, actual as Route, ['link', 'gateway', 'nexthop', 'protocol'])
    case 'neighbour':
      return compare<Neighbour>(desired, actual as Neighbour, ['mac', 'state'])
    case 'fdb':
      return compare<FdbEntry>(desired, actual as FdbEntry, ['destination'])
    case 'peer':
      return comparePeers(desired, actual as Peer)
    default:
      return desired satisfies never
  }
}

/** What differs in a peer. A preshared key is not shown. */
export function comparePeers(desired: Peer, actual: Peer): string[] {
  const found = compare<Peer>(desired, actual, ['endpoint', 'port', 'keepalive'])
  const [wanted, held] = [desired.allowedIps.join(','), actual.allowedIps.join(',')]
  if (wanted !== held) found.push(`allowedIps ${held || 'none'}, not ${wanted || 'none'}`)
  const { presharedKey } = desired
  const same =
    presharedKey === undefined ? actual.presharedKey === undefined : presharedKey.equals(actual.presharedKey)
  if (!same) found.push('another presharedKey')
  return found
}

/** The families in which a link asks otherwise than is desired. */
export function wrongProbes({ appProbes: desired }: Link, { appProbes: actual }: Link): Family[] {
  return FAMILIES.filter((family) => desired[family] !== undefined && desired[family] !== actual[family])
}

function compare<T extends object>(desired: T, actual: T, fields: readonly (keyof T & string)[]): string[] {
  const found: string[] = []
  for (const field of fields) {
    if (desired[field] === actual[field]) continue
    found.push(`${field} ${String(actual[field] ?? 'unset')}, not ${String(desired[field] ?? 'unset')}`)
  }
  return found
}
