/**
 * What the kernel holds of ours, kept by notifications and read anew on any doubt.
 *
 * Nothing that we sent enters here: only what the kernel said. A doubt is an overrun, a dump that was interrupted, and
 * any change of one of our links (the kernel drops what depends on it and does not tell each loss).
 */

import type { Family, PerFamily } from '../address/ip.ts'
import { type Prefix, prefixOf } from '../address/prefix.ts'
import { decodeAddress, getAddresses } from '../netlink/address.ts'
import type { Connection, SubscriptionEvent } from '../netlink/connection.ts'
import { decodeLink, getLinks } from '../netlink/link.ts'
import type { Message } from '../netlink/message.ts'
import { decodeNeighbourTable, getNeighbourTables } from '../netlink/neighbour-table.ts'
import { decodeNeighbour, type Neighbour, getFdb, getNeighbours } from '../netlink/neighbour.ts'
import { decodeNexthop, getNexthops } from '../netlink/nexthop.ts'
import { decodeRoute, getRoutes, RTN_BLACKHOLE } from '../netlink/route.ts'
import {
  AF_BRIDGE,
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
} from '../netlink/rtnetlink.ts'
import { type Entry, MAIN_TABLE, PROTOCOL, type Route, type Scope } from '../state.ts'
import type { Cell, Cells } from './cells.ts'
import type { Checksums } from './checksums.ts'
import { Dependents } from './dependents.ts'
import { diffEntry } from './diff.ts'
import { dump } from './dump.ts'
import { familiesOf, familyNumber } from './families.ts'
import { covered, owns } from './ownership.ts'
import { readAddress, readFdb, readL2Miss, readLink, readNeighbour, readNexthop, readRoute } from './read.ts'
import { Underlay } from './underlay.ts'
import type { WireguardMirror } from './wireguard-mirror.ts'

export class Mirror {
  readonly underlay: Underlay
  readonly #scope: Scope
  readonly #families: readonly Family[]
  readonly #cells: Cells
  readonly #dependents: Dependents
  readonly #wireguard: WireguardMirror | undefined
  readonly #indexes = new Map<string, number>()
  readonly #names = new Map<number, string>()
  #foreignNexthops: readonly number[] = []
  readonly #nexthopObjects: boolean
  #stale = true
  #addressesDoubtful = false
  #checksumsDoubtful = false
  readonly #checksums: Checksums | undefined
  #overruns = 0

  /**
   * @param cells Where the entries are kept, beside what is desired.
   * @param checksums Undefined: not looked at.
   * @param wireguard Undefined where the scope has no such links.
   */
  constructor(
    scope: Scope,
    nexthopObjects: boolean,
    cells: Cells,
    checksums: Checksums | undefined,
    wireguard: WireguardMirror | undefined,
  ) {
    this.#checksums = checksums
    this.underlay = new Underlay(scope.underlay)
    this.#scope = scope
    this.#families = familiesOf(scope)
    this.#cells = cells
    this.#dependents = new Dependents(scope.onDemand)
    this.#nexthopObjects = nexthopObjects
    this.#wireguard = wireguard
  }

  /** Whether the state must be read anew before it is believed. */
  get stale(): boolean {
    return this.#stale
  }

  /** Ids of nexthop objects that are not ours, as of the last reading. */
  get foreignNexthops(): readonly number[] {
    return this.#foreignNexthops
  }

  readonly indexOf = (link: string): number | undefined =>
    this.#indexes.get(link) ?? (link === this.underlay.name ? this.underlay.index : undefined)

  readonly #nameOf = (index: number | undefined): string | undefined =>
    index === undefined ? undefined : this.#names.get(index)

  readonly #nameOfRouteLink = (index: number | undefined): string | undefined =>
    index !== undefined && index === this.underlay.index ? this.underlay.name : this.#nameOf(index)

  readonly #linkOf = (nexthop: number): string | undefined => {
    const entry = this.#cells.nexthop(nexthop)?.actual
    return entry?.kind === 'nexthop' ? entry.link : undefined
  }

  /** How often notifications were lost. */
  get overruns(): number {
    return this.#overruns
  }

  /** The neighbours in the subnet that are answered on demand, in whatever state. */
  onDemand(subnet: Prefix): Cell[] {
    return this.#dependents.onDemand(subnet)
  }

  invalidate(): void {
    this.#stale = true
  }

  /** The kernel tells of a new IPv6 address some time after it is there: the addresses are to be read. */
  doubtAddresses(): void {
    this.#addressesDoubtful = true
  }

  /** Whether something must be read before it is believed, and not all. */
  get doubtful(): boolean {
    const checksums = this.#checksums !== undefined && this.#checksumsDoubtful
    return checksums || this.#addressesDoubtful || this.#wireguard?.isDue(performance.now()) === true
  }

  /** Reads what alone is in doubt. Returns the cells that were read. @throws {NetlinkError} */
  async readDoubtful(connection: Connection): Promise<Set<Cell>> {
    const read = new Set<Cell>()
    await this.#readChecksums(read)
    await this.#readWireguard(read)
    if (!this.#addressesDoubtful) return read
    this.#addressesDoubtful = false
    for (const index of this.#names.keys()) {
      await dump(connection, getAddresses(AF_UNSPEC, index), (message) => this.#take(message, read))
    }
    return read
  }

  async #readChecksums(read: Set<Cell>): Promise<void> {
    if (this.#checksums === undefined || !this.#checksumsDoubtful) return
    this.#checksumsDoubtful = false
    for (const [name, index] of this.#indexes) {
      const link = this.#cells.link(name)?.actual
      const txChecksum = await this.#checksums.read(index)
      if (link?.kind === 'link') this.#put({ ...link, txChecksum }, true, read)
    }
  }

  /** What its devices hold is told by nobody. */
  async #readWireguard(read: Set<Cell>): Promise<void> {
    if (this.#wireguard?.isDue(performance.now()) !== true) return
    const { entries, gone } = await this.#wireguard.look(performance.now())
    for (const entry of entries) this.#put(entry, true, read)
    for (const cell of gone) {
      this.#delete(cell)
      read.add(cell)
    }
  }

  /** Takes what the kernel told, in its order. Returns the cells that changed. */
  take(events: Iterable<SubscriptionEvent>): Set<Cell> {
    const changed = new Set<Cell>()
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
    this.#dependents.clear()
    this.#stale = false
    this.#addressesDoubtful = false
    await this.#readLinks(connection)
    this.#checksumsDoubtful = true
    await this.#readChecksums(new Set())
    await this.#readWireguard(new Set())
    if (this.#nexthopObjects) await this.#readNexthops(connection)
    const take = (message: Message): void => this.#take(message)
    for (const family of this.#families) {
      // Blackholes, which have no link.
      const blackholes = { protocol: PROTOCOL, type: RTN_BLACKHOLE }
      await dump(connection, getRoutes(familyNumber(family), blackholes), take)
    }
    for (const index of this.#names.keys()) {
      await dump(connection, getAddresses(AF_UNSPEC, index), take)
      await dump(connection, getNeighbours(AF_UNSPEC, index), take)
      await dump(connection, getFdb(index), take)
    }
    const indexes = [...this.#names.keys(), this.underlay.index].filter((index) => index !== undefined)
    for (const oif of indexes) {
      for (const family of this.#families) {
        await dump(connection, getRoutes(familyNumber(family), { oif }), take)
      }
    }
  }

  async #readNexthops(connection: Connection): Promise<void> {
    const foreign: number[] = []
    await dump(connection, getNexthops(), (message) => {
      const nexthop = decodeNexthop(message.payload)
      const ours = readNexthop(nexthop, this.#nameOf)
      if (ours !== undefined) this.#set(ours)
      else if (nexthop.id !== undefined) foreign.push(nexthop.id)
    })
    this.#foreignNexthops = foreign
  }

  async #readLinks(connection: Connection): Promise<void> {
    this.#indexes.clear()
    this.#names.clear()
    const probes = new Map<number, PerFamily<number>>()
    for (const family of this.#families) {
      await dump(connection, getNeighbourTables(familyNumber(family)), (message) => {
        const { ifindex, appProbes } = decodeNeighbourTable(message.payload).parameters ?? {}
        if (ifindex !== undefined) probes.set(ifindex, { ...probes.get(ifindex), [family]: appProbes })
      })
    }
    this.underlay.clear()
    this.#wireguard?.clear()
    await dump(connection, getLinks(), (message) => {
      const decoded = decodeLink(message.payload)
      this.underlay.read(decoded)
      const link = this.#scope.links.has(decoded.name ?? '')
        ? readLink(decoded, { appProbes: probes.get(decoded.index) ?? {} })
        : undefined
      if (link === undefined) return
      this.#indexes.set(link.name, decoded.index)
      this.#names.set(decoded.index, link.name)
      this.#wireguard?.found(link.name, decoded.kind)
      this.#set(link)
    })
  }

  #take(message: Message, changed: Set<Cell> = new Set()): void {
    const { type, payload } = message
    switch (type) {
      case RTM_NEWLINK:
      case RTM_DELLINK:
        return this.#takeLink(message, changed)
      case RTM_NEWADDR:
      case RTM_DELADDR: {
        const decoded = decodeAddress(payload)
        if (this.underlay.takeAddress(decoded) && type === RTM_DELADDR) this.#stale = true
        const address = readAddress(decoded, this.#nameOf)
        // With the last address of a link go its gateway routes, untold.
        if (address !== undefined && type === RTM_DELADDR) this.#stale = true
        return this.#put(address, type === RTM_NEWADDR, changed)
      }
      case RTM_NEWNEXTHOP:
      case RTM_DELNEXTHOP:
        return this.#takeNexthop(message, changed)
      case RTM_NEWROUTE:
      case RTM_DELROUTE:
        return this.#takeRoute(message, changed)
      case RTM_NEWNEIGH:
      case RTM_GETNEIGH: // an L3 miss: the kernel shows the neighbour that it wants resolved
      case RTM_DELNEIGH: {
        const neighbour = decodeNeighbour(payload)
        // An L2 miss comes as a neighbour without an IP, of the family AF_INET (Linux 6.18) for IPv6 too.
        const isMiss = type === RTM_GETNEIGH && neighbour.destination === undefined
        if (isMiss || neighbour.family === AF_BRIDGE) return this.#takeFdb(message, neighbour, changed)
        return this.#put(readNeighbour(neighbour, this.#nameOf), type !== RTM_DELNEIGH, changed)
      }
      default:
        return undefined
    }
  }

  /** Of a link only its own attributes change without a doubt; its index, and up or down, take more with them. */
  #takeLink({ type, payload }: Message, changed: Set<Cell>): void {
    const decoded = decodeLink(payload)
    // A bridge tells of its ports, ours if it is one, in messages of its own family.
    if (decoded.family !== AF_UNSPEC) return
    const name = this.#names.get(decoded.index) ?? decoded.name ?? ''
    if (this.underlay.takeLink(decoded, type === RTM_DELLINK)) this.#stale = true
    const known = this.#cells.link(name)?.actual
    if (!this.#scope.links.has(name)) return
    const link = readLink(decoded, known?.kind === 'link' ? known : {})
    this.#checksumsDoubtful = true
    const same = known?.kind === 'link' && link?.name === name && link.up === known.up
    if (type === RTM_DELLINK || !same) this.#stale = true
    else
      this.#put(this.#wireguard?.has(name) === true ? { ...link, tunnel: known.tunnel } : link, true, changed)
  }

  /** Where FDB entries are on demand, one that went is a miss like one that is asked for: if it has an answer, it is back. */
  #takeFdb({ type }: Message, neighbour: Neighbour, changed: Set<Cell>): void {
    if (type === RTM_NEWNEIGH) return this.#put(readFdb(neighbour, this.#nameOf), true, changed)
    const miss = readL2Miss(neighbour, this.#nameOf)
    const onDemand = miss !== undefined && this.#scope.fdbOnDemand.has(miss.link)
    if (type === RTM_DELNEIGH) {
      const entry = readFdb(neighbour, this.#nameOf)
      this.#put(entry, false, changed)
      if (entry === undefined) return
    }
    // A miss may have waited while it was answered.
    if (onDemand && this.#cells.get(miss)?.actual === undefined) this.#put(miss, true, changed)
  }

  /** A miss that has no answer: the kernel keeps no entry of it. */
  forget(cell: Cell): void {
    this.#delete(cell)
  }

  /** Of the underlay's routes, those into our networks. */
  #takeRoute({ type, payload }: Message, changed: Set<Cell>): void {
    const decoded = decodeRoute(payload)
    const route = readRoute(decoded, this.#nameOfRouteLink, this.#linkOf)
    if (route !== undefined && this.#isOfInterest(route)) {
      this.#put(route, type === RTM_NEWROUTE, changed)
    } else if (type === RTM_NEWROUTE && decoded.table === MAIN_TABLE && decoded.destination !== undefined) {
      // A route that replaced one of ours by a way that is not ours: ours went with it, untold.
      const destination = prefixOf(decoded.destination, decoded.destinationLength)
      const held = this.#cells.route(destination, MAIN_TABLE, decoded.priority ?? 0)?.actual
      if (held !== undefined && owns(this.#scope, held)) this.#stale = true
    }
  }

  #isOfInterest({ link, destination }: Route): boolean {
    return link !== this.underlay.name || covered(this.#scope.networks, destination)
  }

  /** The kernel does not tell of the routes that go with their nexthop. */
  #takeNexthop({ type, payload }: Message, changed: Set<Cell>): void {
    const decoded = decodeNexthop(payload)
    if (decoded.protocol !== PROTOCOL) return
    const nexthop = readNexthop(decoded, this.#nameOf)
    this.#put(nexthop, type === RTM_NEWNEXTHOP, changed)
    if (type === RTM_NEWNEXTHOP || nexthop === undefined) return
    for (const cell of this.#dependents.routesOf(nexthop.id)) {
      this.#delete(cell)
      changed.add(cell)
    }
  }

  #put(entry: Entry | undefined, present: boolean, changed: Set<Cell>): void {
    if (entry === undefined) return
    const cell = present ? this.#set(entry) : this.#cells.get(entry)
    if (cell === undefined) return
    if (!present) this.#delete(cell)
    changed.add(cell)
  }

  /** An entry that is as desired is held once. */
  #set(entry: Entry): Cell {
    const cell = this.#cells.at(entry)
    const { desired, actual } = cell
    const kept = desired !== undefined && diffEntry(desired, entry) === undefined ? desired : entry
    this.#cells.put('actual', cell, kept)
    if (actual === kept) return cell
    if (actual !== undefined) this.#dependents.delete(cell, actual)
    this.#dependents.add(cell, kept)
    return cell
  }

  #delete(cell: Cell): void {
    const { actual } = cell
    if (actual === undefined) return
    this.#cells.put('actual', cell, undefined)
    this.#dependents.delete(cell, actual)
  }
}
