/**
 * Names for nexthop objects.
 *
 * A gateway route costs the kernel a walk over all other gateways of the device (quadratic: 40 s for 40,000 routes), a
 * route that names a nexthop object does not. Plans say gateways; this file gives each gateway an object's id. Ids are
 * one space for the whole network namespace, shared with FRR and with other agents: ours come from one range, an id
 * that somebody else uses is never taken, and ids found in the kernel after a restart are kept, so that a restart
 * changes nothing.
 */

import type { Ip } from '../address/ip.ts'

/** First id of our range: 84, our protocol number, in the high byte. */
const FIRST_ID = 84 * 2 ** 24

/** The id of a gateway, and how many routes go through it. */
interface Given {
  readonly id: number
  users: number
}

export class NexthopIds {
  /** By link and gateway. */
  readonly #given = new Map<string, Map<Ip, Given>>()
  /** Ids that were found in the kernel. Those that were given by ourselves lie below the next one. */
  readonly #found = new Set<number>()
  #next = FIRST_ID

  /** An object of ours that the kernel holds: its gateway keeps this id. */
  keep(id: number, link: string, gateway: Ip): void {
    const gateways = this.#gateways(link)
    if (!gateways.has(gateway)) gateways.set(gateway, { id, users: 0 })
    this.#found.add(id)
  }

  /** An object of somebody else's. Returns whether we had given the id to a gateway of ours, which now needs another. */
  avoid(id: number): boolean {
    if (id < FIRST_ID) return false
    const isNew = id >= this.#next && !this.#found.has(id)
    this.#found.add(id)
    if (isNew) return false
    for (const gateways of this.#given.values()) {
      for (const [gateway, given] of gateways) if (given.id === id) return gateways.delete(gateway)
    }
    return false
  }

  /** The id for one more route through the gateway; with one user it is the first. */
  use(link: string, gateway: Ip): Readonly<Given> {
    const gateways = this.#gateways(link)
    let given = gateways.get(gateway)
    if (given === undefined) {
      given = { id: this.#free(), users: 0 }
      gateways.set(gateway, given)
    }
    given.users++
    return given
  }

  /** One route less through the gateway. Returns the id when it was the last: then the object is to go. */
  release(link: string, gateway: Ip): number | undefined {
    const gateways = this.#gateways(link)
    const given = gateways.get(gateway)
    if (given === undefined || --given.users > 0) return undefined
    gateways.delete(gateway)
    this.#found.delete(given.id)
    return given.id
  }

  #gateways(link: string): Map<Ip, Given> {
    let gateways = this.#given.get(link)
    if (gateways === undefined) {
      gateways = new Map()
      this.#given.set(link, gateways)
    }
    return gateways
  }

  #free(): number {
    while (this.#found.has(this.#next)) this.#next++
    return this.#next++
  }
}
