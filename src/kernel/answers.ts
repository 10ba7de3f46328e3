/**
 * Which MAC answers an L3 miss: the longest prefix among the peers' subnets that holds the address. And which outer IP
 * answers an L2 miss: the one of the leases that have the MAC, as many as they are.
 */

import type { Ip } from '../address/ip.ts'
import type { Mac } from '../address/mac.ts'
import { PrefixMap } from '../address/prefix-map.ts'
import { type Answer, fdbKey, type Key } from '../state.ts'

export class Answers {
  readonly #macs = new Map<string, PrefixMap<Mac>>()

  readonly #destinations = new Map<Key, { destination: Ip; leases: number }>()

  set({ link, subnet, mac, destination }: Answer): void {
    if (destination !== undefined) {
      const key = fdbKey(link, mac)
      this.#destinations.set(key, { destination, leases: 1 + (this.#destinations.get(key)?.leases ?? 0) })
    }
    const macs = this.#macs.get(link) ?? new PrefixMap<Mac>()
    this.#macs.set(link, macs)
    macs.set(subnet, mac)
  }

  delete({ link, subnet, mac, destination }: Answer): void {
    const known = destination && this.#destinations.get(fdbKey(link, mac))
    if (known !== undefined && --known.leases === 0) this.#destinations.delete(fdbKey(link, mac))
    this.#macs.get(link)?.delete(subnet)
  }

  /** The MAC of the VTEP behind which the address lives; undefined outside every lease. */
  find(link: string, ip: Ip): Mac | undefined {
    return this.#macs.get(link)?.longest(ip)
  }

  /** Where the VTEP with the MAC is reached; undefined for that of no lease. */
  findDestination(link: string, mac: Mac): Ip | undefined {
    return this.#destinations.get(fdbKey(link, mac))?.destination
  }
}
