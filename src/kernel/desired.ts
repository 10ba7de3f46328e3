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
import { Cells } from './cells.ts'
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
   * Exchanges shares and returns the keys whose desired entry may now be another one, some of them twice. Additions come
   * first, so that what an old and a new share have in common (the nexthop of a host that changed its MAC) keeps its name.
   */
  exchange(removed: readonly Share[], added: readonly Share[]): Key[] {
    const touched: Key[] = []
    for (const share of removed) for (const answer of share.answers) this.answers.delete(answer)
    for (const share of added) for (const answer of share.answers) this.answers.set(answer)
    for (const share of added) for (const entry of share.entries) this.#add(entry, touched)
    for (const share of removed) for (const entry of share.entries) this.#remove(entry, touched)
    return touched
  }

  /** An id of ours turned out to be somebody else's: routes through its gateway get another. */
  renumber(id: number): Key[] {
    const touched: Key[] = []
    const taken = nexthopKey(id)
    if (this.#ids?.avoid(id) !== true || this.#get(taken) === undefined) return touched
    this.#set(taken, undefined, touched)
    for (const { key, desired } of this.#cells.values()) {
      if (desired?.kind === 'route' && desired.nexthop === id)
        this.#set(key, this.#realise(desired, touched), touched)
    }
    return touched
  }

  #add(entry: Entry, touched: Key[]): void {
    const key = keyOf(entry)
    if (entry.kind === 'peer') return this.#setPeers(key, [...this.#peersAt(key), entry], touched)
    if (this.#get(key) !== undefined) this.#extra.set(key, (this.#extra.get(key) ?? 0) + 1)
    this.#set(key, entry.kind === 'route' ? this.#realise(entry, touched) : entry, touched)
  }

  #remove(entry: Entry, touched: Key[]): void {
    const key = keyOf(entry)
    if (entry.kind === 'peer') return this.#setPeers(key, without(this.#peersAt(key), entry), touched)
    const extra = this.#extra.get(key) ?? 0
    if (extra > 1) this.#extra.set(key, extra - 1)
    else if (extra === 1) this.#extra.delete(key)
    else this.#set(key, undefined, touched)
    if (entry.kind === 'route') this.#release(entry, touched)
  }

  #peersAt(key: Key): readonly Peer[] {
    const one = this.#get(key)
    return this.#peers.get(key) ?? (one?.kind === 'peer' ? [one] : [])
  }

  #setPeers(key: Key, peers: readonly Peer[], touched: Key[]): void {
    if (peers.length > 1) this.#peers.set(key, peers)
    else this.#peers.delete(key)
    this.#set(key, joinPeers(peers), touched)
  }

  #realise(route: Route, touched: Key[]): Route {
    const { link, gateway } = route
    if (this.#ids === undefined || link === undefined || gateway === undefined) return route
    if (link === this.#underlay) return route
    const id = this.#ids.use(link, gateway)
    const key = nexthopKey(id)
    if (this.#get(key) === undefined) this.#set(key, { kind: 'nexthop', id, link, gateway }, touched)
    return { ...route, nexthop: id }
  }

  #release({ link, gateway }: Route, touched: Key[]): void {
    if (link === undefined || gateway === undefined) return
    const id = this.#ids?.release(link, gateway)
    if (id !== undefined) this.#set(nexthopKey(id), undefined, touched)
  }

  #set(key: Key, entry: Entry | undefined, touched: Key[]): void {
    this.#cells.set('desired', key, entry)
    touched.push(key)
  }

  #get(key: Key): Entry | undefined {
    return this.#cells.get(key)?.desired
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
