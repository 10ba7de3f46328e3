/** Which MAC answers an L3 miss: the longest prefix among the peers' subnets that holds the address. */

import type { Ip } from '../address/ip.ts'
import type { Mac } from '../address/mac.ts'
import { PrefixMap } from '../address/prefix-map.ts'
import type { Answer } from '../state.ts'

export class Answers {
  readonly #macs = new Map<string, PrefixMap<Mac>>()

  set({ link, subnet, mac }: Answer): void {
    const macs = this.#macs.get(link) ?? new PrefixMap<Mac>()
    this.#macs.set(link, macs)
    macs.set(subnet, mac)
  }

  delete({ link, subnet }: Answer): void {
    this.#macs.get(link)?.delete(subnet)
  }

  /** The MAC of the VTEP behind which the address lives; undefined outside every lease. */
  find(link: string, ip: Ip): Mac | undefined {
    return this.#macs.get(link)?.longest(ip)
  }
}
