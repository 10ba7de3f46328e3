/**
 * The desired state, kept as the union of shares: a lease event adds or removes one share and touches its keys alone.
 *
 * Here plans become what this kernel can hold: a route through a gateway becomes a nexthop object and a route that
 * names it, unless the kernel has no such objects (`ids` undefined). A route over the underlay stays as it is: there is one
 * gateway for each peer in either form, and objects on a link that is not ours could not be told from another agent's.
 */

import type { Entry, KernelState, Peer, Route, Share } from '../state.ts'
import { Answers } from './answers.ts'
import { type Cell, Cells } from './cells.ts'
import type { NexthopIds } from './nexthops.ts'

export class Desired {
  readonly answers = new Answers()
  readonly #cells: Cells
  /** How many shares beyond the first say the same entry: two leases of one host share its FDB entry. */
  readonly #extra = new Map<Cell, number>()
  /** The peers that several shares say, each with its own allowed IPs: two leases of one host have one peer. */
  readonly #peers = new Map<Cell, readonly Peer[]>()
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
    const taken = this.#cells.nexthop(id)
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
    const cell = this.#cells.at(entry)
    if (entry.kind === 'peer') return this.#setPeers(cell, [...this.#peersAt(cell), entry], touched)
    if (cell.desired !== undefined) this.#extra.set(cell, (this.#extra.get(cell) ?? 0) + 1)
    this.#put(cell, entry.kind === 'route' ? this.#realise(entry, touched) : entry, touched)
  }

  #remove(entry: Entry, touched: Cell[]): void {
    const cell = this.#cells.at(entry)
    if (entry.kind === 'peer') return this.#setPeers(cell, without(this.#peersAt(cell), entry), touched)
    const extra = this.#extra.get(cell) ?? 0
    if (extra > 1) this.#extra.set(cell, extra - 1)
    else if (extra === 1) this.#extra.delete(cell)
    else this.#put(cell, undefined, touched)
    if (entry.kind === 'route') this.#release(entry, touched)
  }

  #peersAt(cell: Cell): readonly Peer[] {
    const { desired } = cell
    return this.#peers.get(cell) ?? (desired?.kind === 'peer' ? [desired] : [])
  }

  #setPeers(cell: Cell, peers: readonly Peer[], touched: Cell[]): void {
    if (peers.length > 1) this.#peers.set(cell, peers)
    else this.#peers.delete(cell)
    this.#put(cell, joinPeers(peers), touched)
  }

  #realise(route: Route, touched: Cell[]): Route {
    const { link, gateway } = route
    if (this.#ids === undefined || link === undefined || gateway === undefined) return route
    if (link === this.#underlay) return route
    const { id, users } = this.#ids.use(link, gateway)
    if (users === 1) {
      const nexthop: Entry = { kind: 'nexthop', id, link, gateway }
      this.#put(this.#cells.at(nexthop), nexthop, touched)
    }
    return { ...route, nexthop: id }
  }

  #release({ link, gateway }: Route, touched: Cell[]): void {
    if (link === undefined || gateway === undefined) return
    const id = this.#ids?.release(link, gateway)
    const cell = id === undefined ? undefined : this.#cells.nexthop(id)
    if (cell !== undefined) this.#put(cell, undefined, touched)
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
