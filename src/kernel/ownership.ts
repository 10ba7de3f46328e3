/**
 * What is ours. Decided here and nowhere else, because everything that is ours and not desired is removed.
 *
 * Our links are ours by name (flannel's device names), and with them the permanent neighbours and FDB entries on
 * them: whoever writes there writes into flannel's tables. Routes and addresses on our links can be an operator's, so
 * they must also carry our protocol number or lie inside the network, which is the form that flanneld leaves behind.
 * Nothing on any other link is ours, whatever its protocol: a second agent with another VNI has the same number. A
 * blackhole has no link: ours are those with our number inside our network.
 */

import type { Ip } from '../address/ip.ts'
import { type Prefix, prefixContains, prefixCovers } from '../address/prefix.ts'
import { type Entry, PROTOCOL, type Scope } from '../state.ts'

export function owns(scope: Scope, entry: Entry): boolean {
  switch (entry.kind) {
    case 'link':
      return scope.links.has(entry.name)
    case 'address':
      return scope.links.has(entry.link) && inside(scope, entry.ip)
    case 'nexthop':
      return scope.links.has(entry.link) // the mirror holds nexthops of our protocol only
    case 'route':
      return entry.link === undefined
        ? entry.protocol === PROTOCOL && covered(scope, entry.destination)
        : scope.links.has(entry.link) && (entry.protocol === PROTOCOL || covered(scope, entry.destination))
    case 'neighbour':
      return scope.links.has(entry.link) && entry.state === 'permanent'
    case 'fdb':
      return scope.links.has(entry.link)
    default:
      return entry satisfies never
  }
}

function inside(scope: Scope, ip: Ip): boolean {
  return scope.networks.some((network) => prefixContains(network, ip))
}

function covered(scope: Scope, destination: Prefix): boolean {
  return scope.networks.some((network) => prefixCovers(network, destination))
}
