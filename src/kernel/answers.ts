/** Which MAC answers an L3 miss: the longest prefix among the peers' subnets that holds the address. */

import { type Ip, ipFamily } from '../address/ip.ts'
import type { Mac } from '../address/mac.ts'
import { type Prefix, prefixLength, prefixOf } from '../address/prefix.ts'
import type { Answer } from '../state.ts'

export class Answers {
  readonly #macs = new Map<string, Map<Prefix, Mac>>()
  /** How many subnets of each length, so that a look-up costs one probe for each length in use (one, as a rule). */
  readonly #lengths = new Map<string, Map<number, number>>()

  set(answer: Answer): void {
    const macs = this.#macs.get(answer.link) ?? new Map<Prefix, Mac>()
    if (!macs.has(answer.subnet)) this.#count(answer.link, prefixLength(answer.subnet), 1)
    this.#macs.set(answer.link, macs.set(answer.subnet, answer.mac))
  }

  delete(answer: Answer): void {
    if (this.#macs.get(answer.link)?.delete(answer.subnet)) {
      this.#count(answer.link, prefixLength(answer.subnet), -1)
    }
  }

  /** The MAC of the VTEP behind which the address lives; undefined outside every lease. */
  find(link: string, ip: Ip): Mac | undefined {
    const macs = this.#macs.get(link)
    if (macs === undefined) return undefined
    const family = ipFamily(ip)
    let best: { length: number; mac: Mac } | undefined
    for (const length of this.#lengths.get(link)?.keys() ?? []) {
      if (length > (family === 'inet' ? 32 : 128)) continue
      const subnet = prefixOf(ip, length)
      const mac = macs.get(subnet)
      if (mac !== undefined && (best === undefined || length > best.length)) best = { length, mac }
    }
    return best?.mac
  }

  #count(link: string, length: number, step: 1 | -1): void {
    const lengths = this.#lengths.get(link) ?? new Map<number, number>()
    const count = (lengths.get(length) ?? 0) + step
    if (count === 0) lengths.delete(length)
    else lengths.set(length, count)
    this.#lengths.set(link, lengths)
  }
}
