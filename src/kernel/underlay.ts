/**
 * The external interface, as far as the routes over it are concerned. It is not ours: nothing is done to it. When it goes
 * down or loses an address, the kernel drops gateway routes and tells of none of them; when it comes back, what failed
 * can be made.
 */

import type { Address } from '../netlink/address.ts'
import { IFF_UP, type Link } from '../netlink/link.ts'

export class Underlay {
  /** Undefined: the scope has none. */
  readonly name: string | undefined
  #index: number | undefined
  #up = false
  #changed = false

  constructor(name: string | undefined) {
    this.name = name
  }

  /** Undefined while there is no such link. */
  get index(): number | undefined {
    return this.#index
  }

  /** Before all links are read. */
  clear(): void {
    this.#index = undefined
  }

  /** A link as it was read. */
  read({ name, index, flags }: Link): void {
    if (name === undefined || name !== this.name) return
    this.#index = index
    this.#up = (flags & IFF_UP) !== 0
  }

  /** A link of which the kernel told. Returns whether the routes over the underlay are in doubt. */
  takeLink({ name, index, flags }: Link, deleted: boolean): boolean {
    const isIt = index === this.#index
    if (!isIt && (name === undefined || name !== this.name)) return false
    const same = isIt && !deleted && name === this.name && ((flags & IFF_UP) !== 0) === this.#up
    if (!same) this.#changed = true
    return !same
  }

  /** An address that came or went. Returns whether it is the underlay's. */
  takeAddress({ ifindex }: Address): boolean {
    if (ifindex !== this.#index) return false
    this.#changed = true
    return true
  }

  /** Whether, since it was last asked, it changed so that what failed may succeed. */
  takeChange(): boolean {
    const changed = this.#changed
    this.#changed = false
    return changed
  }
}
