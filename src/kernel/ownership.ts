/**
 * What is ours. Decided here and nowhere else, because everything that is ours and not desired is removed.
 *
 * Our links are ours by name (flannel's device names), and with them the permanent neighbours, FDB entries and
 * WireGuard peers on them: whoever writes there writes into flannel's tables. Routes and addresses on our links can be an operator's, so
 * they must also carry our protocol number or lie inside the network, which is the form that flanneld leaves behind.
 * A route that the kernel makes for an address goes with that address, and is never ours.
 *
 * Nothing on any other link is ours, whatever its protocol: a second agent with another VNI has the same number. Except
 * on the underlay, where that agent has routes too: a route there is ours with our number and inside our network. A
 * blackhole has no link: ours are those with our number inside our network.
 */

import type { Ip } from '../address/ip.ts'
import { type Prefix, prefixContains, prefixCovers } from '../address/prefix.ts'
import { type Entry, PROTOCOL, type Route, type Scope } from '../state.ts'

/** RTPROT_KERNEL */
const KERNEL_PROTOCOL = 2

export function owns(scope: Scope, entry: Entry): boolean {
  switch (entry.kind) {
    case 'link':
      return scope.links.has(entry.name)
    case 'address':
      return scope.links.has(entry.link) && inside(scope, entry.ip)
    case 'nexthop':
      return scope.links.has(entry.link) // the mirror holds nexthops of our protocol only
    case 'route':
      return ownsRoute(scope, entry)
    case 'neighbour':
      return scope.links.has(entry.link) && entry.state === 'permanent'
    case 'fdb':
      return scope.links.has(entry.link) && entry.destination !== undefined
    case 'peer':
      return scope.links.has(entry.link)
    default:
      return entry satisfies never
  }
}

/** Whether a route leads into our networks and nowhere else. */
export function covered(networks: readonly Prefix[], destination: Prefix): boolean {
  return networks.some((network) => prefixCovers(network, destination))
}

/**
 * Whether the desired entry may take the place of what is there. A foreign route over the underlay gives way to a route
 * over the underlay alone: there flanneld leaves its own, and replaces any other to a subnet of a lease.
 */
export function mayReplace({ underlay }: Scope, desired: Entry, actual: Entry): boolean {
  if (desired.kind !== 'route' || actual.kind !== 'route') return true
  return actual.link !== underlay || actual.protocol === PROTOCOL || desired.link === underlay
}

function ownsRoute({ links, underlay, networks }: Scope, { link, protocol, destination }: Route): boolean {
  const isCovered = covered(networks, destination)
  if (link !== undefined && links.has(link)) {
    return protocol === PROTOCOL || (isCovered && protocol !== KERNEL_PROTOCOL)
  }
  return (link === undefined || link === underlay) && protocol === PROTOCOL && isCovered
}

function inside(scope: Scope, ip: Ip): boolean {
  return scope.networks.some((network) => prefixContains(network, ip))
}
