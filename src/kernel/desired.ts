/**
 * The desired state, kept as the union of shares: a lease event adds or removes one share and touches its keys alone.
 *
 * Here plans become what this kernel can hold: a route through a gateway becomes a nexthop object and a route that
 * names it, unless the kernel has no such objects (`ids` undefined). A route over the underlay stays as it is: there is one
 * gateway for each peer in either form, and objects on a link that is not ours could not be told from another agent's.
 */

import {
  type Entry,
  type Key,
  type KernelState,
  keyOf,
  nexthopKey,
  type Peer,
  type Route,
  type Share,
} from '../state.ts'
import { Answers } from './answers.ts'
import { type Cell, Cells } from './cells.ts'
import type { NexthopIds } from './nexthops.ts'

export class Desired {
  readonly answers = new Answers()
  readonly #cells: Cells
  /** How many shares beyond the first say the same entry: two leases of one host share its FDB entry. */
  readonly #extra = new Map<Key, number>()
  /** The peers that several shares say, each with its own allowed IPs: two leases of one host have one peer. */
  readonly #peers = new Map<Key, readonly Peer[]>()
  readonly #ids: NexthopIds | undefined
  readonly #underlay: string | undefined

  /** @param cells Where the entries are kept, beside what the kernel holds. */
  constructor(ids: NexthopIds | undefined, underlay?: string, cells = new Cells()) {
    this.#ids = ids
    this.#underlay = underlay
    this.#cells = cells
  }

  get entries(): KernelState {
    return this.#cells.state('desired')
  }

  /**
   * Exchanges shares and returns the cells whose desired entry may now be another one, some of them twice. Additions come
   * first, so that what an old and a new share have in common (the nexthop of a host that changed its MAC) keeps its name.
   */
  exchange(removed: readonly Share[], added: readonly Share[]): Cell[] {
    const touched: Cell[] = []
    for (const share of removed) for (const answer of share.answers) this.answers.delete(answer)
    for (const share of added) for (const answer of share.answers) this.answers.set(answer)
    for (const share of added) for (const entry of share.entries) this.#add(entry, touched)
    for (const share of removed) for (const entry of share.entries) this.#remove(entry, touched)
    return touched
  }

  /** An id of ours turned out to be somebody else's: routes through its gateway get another. */
  renumber(id: number): Cell[] {
    const touched: Cell[] = []
    const taken = this.#cells.get(nexthopKey(id))
    if (this.#ids?.avoid(id) !== true || taken?.desired === undefined) return touched
    this.#put(taken, undefined, touched)
    for (const cell of this.#cells.values()) {
      const { desired } = cell
      if (desired?.kind === 'route' && desired.nexthop === id)
        this.#put(cell, this.#realise(desired, touched), touched)
    }
    return touched
  }

  #add(entry: Entry, touched: Cell[]): void {
    const cell = this.#cells.at(keyOf(entry))
    const { key } = cell
    if (entry.kind === 'peer') return this.#setPeers(cell, [...this.#peersAt(cell), entry], touched)
    if (cell.desired !== undefined) this.#extra.set(key, (this.#extra.get(key) ?? 0) + 1)
    this.#put(cell, entry.kind === 'route' ? this.#realise(entry, touched) : entry, touched)
  }

  #remove(entry: Entry, touched: Cell[]): void {
    const cell = this.#cells.at(keyOf(entry))
    const { key } = cell
    if (entry.kind === 'peer') return this.#setPeers(cell, without(this.#peersAt(cell), entry), touched)
    const extra = this.#extra.get(key) ?? 0
    if (extra > 1) this.#extra.set(key, extra - 1)
    else if (extra === 1) this.#extra.delete(key)
    else this.#put(cell, undefined, touched)
    if (entry.kind === 'route') this.#release(entry, touched)
  }

  #peersAt({ key, desired }: Cell): readonly Peer[] {
    return this.#peers.get(key) ?? (desired?.kind === 'peer' ? [desired] : [])
  }

  #setPeers(cell: Cell, peers: readonly Peer[], touched: Cell[]): void {
    if (peers.length > 1) this.#peers.set(cell.key, peers)
    else this.#peers.delete(cell.key)
    this.#put(cell, joinPeers(peers), touched)
  }

  #realise(route: Route, touched: Cell[]): Route {
    const { link, gateway } = route
    if (this.#ids === undefined || link === undefined || gateway === undefined) return route
    if (link === this.#underlay) return route
    const id = this.#ids.use(link, gateway)
    const cell = this.#cells.at(nexthopKey(id))
    if (cell.desired === undefined) this.#put(cell, { kind: 'nexthop', id, link, gateway }, touched)
    return { ...route, nexthop: id }
  }

  #release({ link, gateway }: Route, touched: Cell[]): void {
    if (link === undefined || gateway === undefined) return
    const id = this.#ids?.release(link, gateway)
    if (id !== undefined) this.#put(this.#cells.at(nexthopKey(id)), undefined, touched)
  }

  #put(cell: Cell, entry: Entry | undefined, touched: Cell[]): void {
    this.#cells.put('desired', cell, entry)
    touched.push(cell)
  }
}

/** Without the first that is the same. */
function without(peers: readonly Peer[], { endpoint, port, allowedIps }: Peer): Peer[] {
  const subnets = allowedIps.join()
  const at = peers.findIndex(
    (peer) => peer.endpoint === endpoint && peer.port === port && peer.allowedIps.join() === subnets,
  )
  return peers.filter((_, i) => i !== at)
}

/** One peer with the allowed IPs of all of them; all else is that of the last. */
function joinPeers(peers: readonly Peer[]): Peer | undefined {
  const last = peers.at(-1)
  if (last === undefined || peers.length === 1) return last
  const allowedIps = [...new Set(peers.flatMap((peer) => peer.allowedIps))].toSorted()
  return { ...last, allowedIps }
}
