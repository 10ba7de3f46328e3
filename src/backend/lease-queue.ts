/**
 * What is to be done for peers' leases outside the kernel: one thing after the other, in the order in which the leases
 * came and went. One that fails is tried again with growing pauses, and holds up no other.
 *
 * A peer is known by its subnet, so that a lease that takes the place of another, under whatever key, follows it. Only the
 * last word counts: a peer that comes and goes while others are waited for is not done at all.
 */

import type { Prefix } from '../address/prefix.ts'
import { Bell } from '../kernel/bell.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { BackendError, type CompanionStep } from './backend.ts'

/** What can be done for a lease. Both throw a {@link BackendError}. */
export interface LeaseActions {
  /** As in `CompanionStep`. */
  readonly kind: string
  /** Whether both leases ask for the same. */
  same(a: Lease, b: Lease): boolean
  add(lease: Lease, signal: AbortSignal): Promise<void>
  remove(lease: Lease, signal: AbortSignal): Promise<void>
}

/** Milliseconds: the first pause, doubled with each attempt up to the longest. */
const FIRST_PAUSE = 100
const LONGEST_PAUSE = 30_000
/** After so many attempts a removal is given up: what is to be removed may be gone, and no lease wants it. */
const MAX_REMOVALS = 10
/** Longer than any pause: who has nothing to do waits for the bell. */
const IDLE = 3_600_000

interface Peer {
  readonly id: Prefix
  /** The lease for which `add` was last tried, until it is removed. */
  applied: Lease | undefined
  wanted: Lease | undefined
  attempts: number
  /** When it is due. Milliseconds, as `performance.now`. */
  at: number
  failure: string
}

export class LeaseQueue {
  readonly #actions: LeaseActions
  readonly #bell = new Bell()
  readonly #peers = new Map<Prefix, Peer>()
  /** Those with something to do, in the order in which it came up. */
  readonly #pending = new Set<Peer>()

  constructor(actions: LeaseActions) {
    this.#actions = actions
  }

  get failures(): ReadonlyMap<LeaseKey, string> {
    const failures = new Map<LeaseKey, string>()
    for (const { wanted, applied, failure } of this.#pending) {
      const lease = wanted ?? applied
      if (failure !== '' && lease !== undefined) failures.set(lease.key, failure)
    }
    return failures
  }

  exchange(removed: readonly Lease[], added: readonly Lease[]): void {
    const before = new Map<Peer, Lease | undefined>()
    for (const lease of removed) this.#want(lease, undefined, before)
    for (const lease of added) this.#want(lease, lease, before)
    for (const [peer, wanted] of before) {
      // A lease that was renewed asks for nothing, and what failed keeps its pause.
      if (this.#isSame(wanted, peer.wanted)) continue
      if (this.#isDone(peer)) this.#pending.delete(peer)
      else this.#due(peer, 0)
      peer.attempts = 0
    }
    this.#bell.ring()
  }

  /** All that was done is lost: it is to be done again. */
  again(): void {
    for (const peer of this.#peers.values()) {
      if (peer.wanted !== undefined) this.#due(peer, 0)
      Object.assign(peer, { applied: undefined, attempts: 0 })
    }
    this.#bell.ring()
  }

  async *run(signal: AbortSignal): AsyncGenerator<CompanionStep, void> {
    while (!signal.aborted) {
      const now = performance.now()
      const [due] = this.#pending.values().filter(({ at }) => at <= now)
      if (due !== undefined) {
        const steps = await this.#attempt(due, signal)
        // What the signal cut short did not fail.
        if (!signal.aborted) yield* steps
      } else await this.#bell.heard(this.#pause(now), signal)
    }
  }

  /** @param before Gets what was wanted of it until now. */
  #want(lease: Lease, wanted: Lease | undefined, before: Map<Peer, Lease | undefined>): void {
    const id = lease.subnets.inet ?? lease.subnets.inet6
    if (id === undefined) throw new Error(`lease ${lease.key} has no subnet`)
    const fresh = { id, applied: undefined, wanted: undefined, attempts: 0, at: 0, failure: '' }
    const peer = this.#peers.get(id) ?? fresh
    if (!before.has(peer)) before.set(peer, peer.wanted)
    peer.wanted = wanted
    this.#peers.set(id, peer)
  }

  #isDone({ applied, wanted, failure }: Peer): boolean {
    return failure === '' && this.#isSame(applied, wanted)
  }

  #isSame(a: Lease | undefined, b: Lease | undefined): boolean {
    return a === undefined || b === undefined ? a === b : this.#actions.same(a, b)
  }

  #due(peer: Peer, at: number): void {
    peer.at = at
    this.#pending.add(peer)
  }

  #pause(now: number): number {
    let next = now + IDLE
    for (const { at } of this.#pending) next = Math.min(next, at)
    return next - now
  }

  /** All that a peer needs now: what is there is removed, then what is wanted is added. Gives what was done. */
  async #attempt(peer: Peer, signal: AbortSignal): Promise<CompanionStep[]> {
    const { applied, wanted } = peer
    const steps: CompanionStep[] = []
    this.#pending.delete(peer)
    peer.attempts++
    if (applied !== undefined && !this.#isSame(applied, wanted)) {
      steps.push(await this.#step('delete', applied, signal))
    }
    // With a lease to add, it is that what counts: its `add` is due also where the removal failed.
    if (wanted !== undefined) {
      peer.applied = wanted
      steps.push(await this.#step('add', wanted, signal))
    }
    peer.failure = steps.at(-1)?.error ?? ''
    const givenUp = wanted === undefined && peer.attempts >= MAX_REMOVALS
    if (givenUp) peer.failure = ''
    if (wanted === undefined && peer.failure === '') peer.applied = undefined
    if (this.#isDone(peer)) {
      if (peer.wanted === undefined) this.#peers.delete(peer.id)
    } else if (!this.#pending.has(peer)) {
      const pause = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (peer.attempts - 1))
      this.#due(peer, performance.now() + pause)
    }
    return steps
  }

  async #step(verb: CompanionStep['verb'], lease: Lease, signal: AbortSignal): Promise<CompanionStep> {
    const { kind } = this.#actions
    try {
      await (verb === 'add' ? this.#actions.add(lease, signal) : this.#actions.remove(lease, signal))
      return { kind, verb, lease, error: '' }
    } catch (error) {
      if (!(error instanceof BackendError)) throw error
      return { kind, verb, lease, error: error.message }
    }
  }
}
