/** What follows from the network config and our own lease, in each family that they have. Pure. */

import type { Family, PerFamily } from '../address/ip.ts'
import { type Prefix, prefixFamily } from '../address/prefix.ts'
import type { NetworkConfig } from '../config/network-config.ts'
import type { Lease } from '../lease/lease.ts'
import { type Entry, MAIN_TABLE, PROTOCOL, type Share } from '../state.ts'

/** The worst metric: the route of the containers' bridge, to the same subnet, goes before. */
const LAST_METRIC = 2 ** 32 - 1

export function networksOf({ ranges }: NetworkConfig): PerFamily<Prefix> {
  const networks: Partial<Record<Family, Prefix>> = {}
  for (const { network } of Object.values(ranges)) networks[prefixFamily(network)] = network
  return networks
}

/** Each network with our subnet of it: what the packet filter has rules for. */
export function overlaysOf(
  config: NetworkConfig,
  { subnets }: Lease,
): PerFamily<{ readonly network: Prefix; readonly subnet: Prefix }> {
  const overlays: Partial<Record<Family, { network: Prefix; subnet: Prefix }>> = {}
  for (const { network } of Object.values(config.ranges)) {
    const subnet = subnets[prefixFamily(network)]
    if (subnet !== undefined) overlays[prefixFamily(network)] = { network, subnet }
  }
  return overlays
}

/** A blackhole for each of our own subnets. */
export function blackholes({ subnets }: Lease): Share {
  const nowhere = { link: undefined, gateway: undefined, nexthop: undefined, protocol: PROTOCOL }
  const entries = Object.values(subnets).map(
    (destination): Entry => ({
      kind: 'route',
      destination,
      table: MAIN_TABLE,
      metric: LAST_METRIC,
      ...nowhere,
    }),
  )
  return { entries, answers: [] }
}
