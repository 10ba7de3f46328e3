/** Listens to what the kernel of a host tells, and remembers when it told it. */

import { setTimeout as sleep } from 'node:timers/promises'
import { Subscription, type SubscriptionEvent } from '../netlink/connection.ts'
import { decodeNeighbour, type Neighbour } from '../netlink/neighbour.ts'
import { decodeRoute, type Route } from '../netlink/route.ts'
import {
  RTM_DELNEIGH,
  RTM_DELROUTE,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
  RTM_NEWROUTE,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_NEIGH,
} from '../netlink/rtnetlink.ts'
import { LabError } from './topology.ts'

/**
 * `get` is an L3 miss: the kernel asks. Neighbours are FDB entries too, of family AF_BRIDGE.
 *
 * Netlink has no timestamps, so a time is a span: after `since`, when nothing had been told yet, and before `at`, when
 * it was read. Milliseconds of performance.now().
 */
export type News = { readonly since: number; readonly at: number } & (
  | { readonly verb: 'new' | 'delete' | 'get'; readonly neighbour: Neighbour }
  | { readonly verb: 'new' | 'delete'; readonly route: Route }
)

/** The longest time that can have passed between two. Milliseconds. */
export function atMost(from: News, to: News): number {
  return to.at - from.since
}

const TIMEOUT = 10_000

export class Watch {
  readonly #subscription: Subscription
  readonly #reading: Promise<void>
  readonly #news: News[] = []
  #since = performance.now()

  /** @param netns Path of the namespace, `/run/netns/x`. */
  constructor(netns: string) {
    this.#subscription = Subscription.open({ netns, groups: [RTNLGRP_NEIGH, RTNLGRP_IPV4_ROUTE] })
    this.#reading = this.#read()
  }

  /** All so far. */
  get news(): readonly News[] {
    return this.#news
  }

  /** The first one that matches, of all or of those after another. @throws {LabError} when none comes. */
  async first(what: string, matches: (news: News) => boolean, after?: News): Promise<News> {
    const start = after === undefined ? 0 : this.#news.indexOf(after) + 1
    const deadline = performance.now() + TIMEOUT
    for (;;) {
      const found = this.#news.slice(start).find(matches)
      if (found !== undefined) return found
      if (performance.now() > deadline) throw new LabError(`after ${TIMEOUT / 1000} s still no ${what}`)
      await sleep(2)
    }
  }

  /**
   * Listens without a break until something matches, at most `limit` milliseconds. Nothing else in this process runs
   * meanwhile, so that spans are as short as they can be.
   */
  spin(matches: (news: News) => boolean, limit: number): void {
    const deadline = performance.now() + limit
    for (let now = performance.now(); now < deadline; now = performance.now()) {
      const known = this.#news.length
      for (const event of this.#subscription.drain()) this.#take(event)
      if (this.#news.length === known) this.#since = now
      else if (this.#news.slice(known).some(matches)) return
    }
  }

  async close(): Promise<void> {
    this.#subscription.close()
    await this.#reading
  }

  async #read(): Promise<void> {
    for await (const event of this.#subscription) this.#take(event)
  }

  #take(event: SubscriptionEvent): void {
    const span = { since: this.#since, at: performance.now() }
    if (event.kind === 'overrun') return
    for (const { type, payload } of event.messages) {
      switch (type) {
        case RTM_NEWNEIGH:
          this.#news.push({ ...span, verb: 'new', neighbour: decodeNeighbour(payload) })
          break
        case RTM_DELNEIGH:
          this.#news.push({ ...span, verb: 'delete', neighbour: decodeNeighbour(payload) })
          break
        case RTM_GETNEIGH:
          this.#news.push({ ...span, verb: 'get', neighbour: decodeNeighbour(payload) })
          break
        case RTM_NEWROUTE:
          this.#news.push({ ...span, verb: 'new', route: decodeRoute(payload) })
          break
        case RTM_DELROUTE:
          this.#news.push({ ...span, verb: 'delete', route: decodeRoute(payload) })
          break
      }
    }
  }
}
