/**
 * What the kernel holds of ours, kept by notifications and read anew on any doubt.
 *
 * Nothing that we sent enters here: only what the kernel said. A doubt is an overrun, a dump that was interrupted, and
 * any change of one of our links (the kernel drops what depends on it and does not tell each loss).
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { familyBits, type Ip, ipFamily } from '../address/ip.ts'
import { type Prefix, prefixOf } from '../address/prefix.ts'
import { PrefixMap } from '../address/prefix-map.ts'
import { decodeAddress, getAddresses } from '../netlink/address.ts'
import { type Connection, DumpInterrupted, type SubscriptionEvent } from '../netlink/connection.ts'
import { decodeLink, getLinks } from '../netlink/link.ts'
import { type Message, NetlinkError, type Request } from '../netlink/message.ts'
import { decodeNeighbourTable, getNeighbourTables } from '../netlink/neighbour-table.ts'
import { decodeNeighbour, getFdb, getNeighbours } from '../netlink/neighbour.ts'
import { decodeNexthop, getNexthops } from '../netlink/nexthop.ts'
import { decodeRoute, getRoutes, RTN_BLACKHOLE } from '../netlink/route.ts'
import {
  AF_BRIDGE,
  AF_INET,
  AF_UNSPEC,
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_DELNEIGH,
  RTM_DELNEXTHOP,
  RTM_DELROUTE,
  RTM_GETNEIGH,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWNEIGH,
  RTM_NEWNEXTHOP,
  RTM_NEWROUTE,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_LINK,
  RTNLGRP_NEIGH,
  RTNLGRP_NEXTHOP,
} from '../netlink/rtnetlink.ts'
import { type Entry, type Key, keyOf, linkKey, nexthopKey, PROTOCOL, type Scope } from '../state.ts'
import type { Cells } from './cells.ts'
import { diffEntry } from './diff.ts'
import { readAddress, readFdb, readLink, readNeighbour, readNexthop, readRoute } from './read.ts'

/** The groups that a subscription for a mirror joins. */
export function mirrorGroups(nexthopObjects: boolean): number[] {
  const groups = [RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE]
  return nexthopObjects ? [...groups, RTNLGRP_NEXTHOP] : groups
}

/** Whether the kernel has nexthop objects (Linux 5.3). */
export async function hasNexthopObjects(connection: Connection): Promise<boolean> {
  try {
    await dump(connection, getNexthops(), () => undefined)
    return true
  } catch (error) {
    if (error instanceof NetlinkError && error.code === 'EOPNOTSUPP') return false
    throw error
  }
}

const DUMP_ATTEMPTS = 10
const DUMP_PAUSE = 20

export class Mirror {
  readonly #scope: Scope
  readonly #cells: Cells
  /** The routes that use a nexthop object; as a rule it is one. */
  readonly #routesOf = new Map<number, readonly Key[]>()
  /** The keys of neighbours on links where they are answered on demand, each by its address as a prefix. */
  #onDemand = new PrefixMap<readonly Key[]>()
  readonly #indexes = new Map<string, number>()
  readonly #names = new Map<number, string>()
  #foreignNexthops: readonly number[] = []
  readonly #nexthopObjects: boolean
  #stale = true
  #overruns = 0

  /** @param cells Where the entries are kept, beside what is desired. */
  constructor(scope: Scope, nexthopObjects: boolean, cells: Cells) {
    this.#scope = scope
    this.#cells = cells
    this.#nexthopObjects = nexthopObjects
  }

  /** Whether the state must be read anew before it is believed. */
  get stale(): boolean {
    return this.#stale
  }

  /** Ids of nexthop objects that are not ours, as of the last reading. */
  get foreignNexthops(): readonly number[] {
    return this.#foreignNexthops
  }

  readonly indexOf = (link: string): number | undefined => this.#indexes.get(link)

  readonly #nameOf = (index: number | undefined): string | undefined =>
    index === undefined ? undefined : this.#names.get(index)

  readonly #linkOf = (nexthop: number): string | undefined => {
    const entry = this.#cells.get(nexthopKey(nexthop))?.actual
    return entry?.kind === 'nexthop' ? entry.link : undefined
  }

  /** How often notifications were lost. */
  get overruns(): number {
    return this.#overruns
  }

  /** The neighbours in the subnet that are answered on demand, in whatever state. */
  onDemand(subnet: Prefix): Key[] {
    return this.#onDemand.overlapping(subnet).flat()
  }

  invalidate(): void {
    this.#stale = true
  }

  /** Takes what the kernel told, in its order. Returns the keys that changed. */
  take(events: Iterable<SubscriptionEvent>): Set<Key> {
    const changed = new Set<Key>()
    for (const event of events) {
      if (event.kind === 'overrun') {
        this.#stale = true
        this.#overruns++
      } else for (const message of event.messages) this.#take(message, changed)
    }
    return changed
  }

  /** Reads everything that is ours. The subscription must be open before. @throws {NetlinkError} */
  async read(connection: Connection): Promise<void> {
    this.#cells.clear('actual')
    this.#routesOf.clear()
    this.#onDemand = new PrefixMap()
    this.#stale = false
    await this.#readLinks(connection)
    if (this.#nexthopObjects) await this.#readNexthops(connection)
    // Blackholes, which have no link.
    await dump(connection, getRoutes(AF_INET, { protocol: PROTOCOL, type: RTN_BLACKHOLE }), (message) =>
      this.#take(message),
    )
    for (const index of this.#names.keys()) {
      await dump(connection, getAddresses(AF_UNSPEC, index), (message) => this.#take(message))
      await dump(connection, getNeighbours(AF_UNSPEC, index), (message) => this.#take(message))
      await dump(connection, getFdb(index), (message) => this.#take(message))
      await dump(connection, getRoutes(AF_INET, { oif: index }), (message) => this.#take(message))
    }
  }

  async #readNexthops(connection: Connection): Promise<void> {
    const foreign: number[] = []
    await dump(connection, getNexthops(), (message) => {
      const nexthop = decodeNexthop(message.payload)
      const ours = readNexthop(nexthop, this.#nameOf)
      if (ours !== undefined) this.#set(keyOf(ours), ours)
      else if (nexthop.id !== undefined) foreign.push(nexthop.id)
    })
    this.#foreignNexthops = foreign
  }

  async #readLinks(connection: Connection): Promise<void> {
    this.#indexes.clear()
    this.#names.clear()
    const probes = new Map<number, number>()
    await dump(connection, getNeighbourTables(AF_INET), (message) => {
      const { ifindex, appProbes } = decodeNeighbourTable(message.payload).parameters ?? {}
      if (ifindex !== undefined && appProbes !== undefined) probes.set(ifindex, appProbes)
    })
    await dump(connection, getLinks(), (message) => {
      const decoded = decodeLink(message.payload)
      const link = this.#scope.links.has(decoded.name ?? '')
        ? readLink(decoded, probes.get(decoded.index) ?? 0)
        : undefined
      if (link === undefined) return
      this.#indexes.set(link.name, decoded.index)
      this.#names.set(decoded.index, link.name)
      this.#set(keyOf(link), link)
    })
  }

  #take(message: Message, changed: Set<Key> = new Set()): void {
    const { type, payload } = message
    switch (type) {
      case RTM_NEWLINK:
      case RTM_DELLINK:
        return this.#takeLink(message, changed)
      case RTM_NEWADDR:
      case RTM_DELADDR: {
        const address = readAddress(decodeAddress(payload), this.#nameOf)
        // With the last address of a link go its gateway routes, untold.
        if (address !== undefined && type === RTM_DELADDR) this.#stale = true
        return this.#put(address, type === RTM_NEWADDR, changed)
      }
      case RTM_NEWNEXTHOP:
      case RTM_DELNEXTHOP:
        return this.#takeNexthop(message, changed)
      case RTM_NEWROUTE:
      case RTM_DELROUTE: {
        const route = readRoute(decodeRoute(payload), this.#nameOf, this.#linkOf)
        return this.#put(route, type === RTM_NEWROUTE, changed)
      }
      case RTM_NEWNEIGH:
      case RTM_GETNEIGH: // an L3 miss: the kernel shows the neighbour that it wants resolved
      case RTM_DELNEIGH: {
        const neighbour = decodeNeighbour(payload)
        const entry =
          neighbour.family === AF_BRIDGE
            ? readFdb(neighbour, this.#nameOf)
            : readNeighbour(neighbour, this.#nameOf)
        return this.#put(entry, type !== RTM_DELNEIGH, changed)
      }
      default:
        return undefined
    }
  }

  /** Of a link only its own attributes change without a doubt; its index, and up or down, take more with them. */
  #takeLink({ type, payload }: Message, changed: Set<Key>): void {
    const decoded = decodeLink(payload)
    // A bridge tells of its ports, ours if it is one, in messages of its own family.
    if (decoded.family !== AF_UNSPEC) return
    const name = this.#names.get(decoded.index) ?? decoded.name ?? ''
    const known = this.#cells.get(linkKey(name))?.actual
    if (!this.#scope.links.has(name)) return
    const link = readLink(decoded, known?.kind === 'link' ? known.appProbes : 0)
    const same = known?.kind === 'link' && link?.name === name && link.up === known.up
    if (type === RTM_DELLINK || !same) this.#stale = true
    else this.#put(link, true, changed)
  }

  /** The kernel does not tell of the routes that go with their nexthop. */
  #takeNexthop({ type, payload }: Message, changed: Set<Key>): void {
    const decoded = decodeNexthop(payload)
    if (decoded.protocol !== PROTOCOL) return
    const nexthop = readNexthop(decoded, this.#nameOf)
    this.#put(nexthop, type === RTM_NEWNEXTHOP, changed)
    if (type === RTM_NEWNEXTHOP || nexthop === undefined) return
    for (const key of this.#routesOf.get(nexthop.id) ?? []) {
      this.#delete(key)
      changed.add(key)
    }
  }

  #put(entry: Entry | undefined, present: boolean, changed: Set<Key>): void {
    if (entry === undefined) return
    const key = keyOf(entry)
    if (present) this.#set(key, entry)
    else this.#delete(key)
    changed.add(key)
  }

  /** An entry that is as desired is held once. */
  #set(key: Key, entry: Entry): void {
    const { desired, actual } = this.#cells.get(key) ?? {}
    const kept = desired !== undefined && diffEntry(key, desired, entry) === undefined ? desired : entry
    this.#cells.set('actual', key, kept)
    if (actual === kept) return
    if (actual !== undefined) this.#unlist(key, actual)
    this.#list(key, kept)
  }

  #delete(key: Key): void {
    const entry = this.#cells.get(key)?.actual
    if (entry === undefined) return
    this.#cells.set('actual', key, undefined)
    this.#unlist(key, entry)
  }

  #list(key: Key, entry: Entry): void {
    if (entry.kind === 'route' && entry.nexthop !== undefined) {
      this.#routesOf.set(entry.nexthop, [...(this.#routesOf.get(entry.nexthop) ?? []), key])
    } else if (entry.kind === 'neighbour' && this.#scope.onDemand.has(entry.link)) {
      const address = hostPrefix(entry.ip)
      this.#onDemand.set(address, [...(this.#onDemand.get(address) ?? []), key])
    }
  }

  #unlist(key: Key, entry: Entry): void {
    if (entry.kind === 'route' && entry.nexthop !== undefined) {
      const rest = this.#routesOf.get(entry.nexthop)?.filter((other) => other !== key) ?? []
      if (rest.length === 0) this.#routesOf.delete(entry.nexthop)
      else this.#routesOf.set(entry.nexthop, rest)
    } else if (entry.kind === 'neighbour' && this.#scope.onDemand.has(entry.link)) {
      const address = hostPrefix(entry.ip)
      const rest = this.#onDemand.get(address)?.filter((other) => other !== key) ?? []
      if (rest.length === 0) this.#onDemand.delete(address)
      else this.#onDemand.set(address, rest)
    }
  }
}

function hostPrefix(ip: Ip): Prefix {
  return prefixOf(ip, familyBits(ipFamily(ip)))
}

/** A dump that was interrupted is repeated: `visit` may see an object twice. */
async function dump(
  connection: Connection,
  request: Request,
  visit: (message: Message) => void,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await connection.dump(request, visit)
    } catch (error) {
      if (!(error instanceof DumpInterrupted) || attempt === DUMP_ATTEMPTS) throw error
      await sleep(DUMP_PAUSE)
    }
  }
}
