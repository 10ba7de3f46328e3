/**
 * Endpoints that roam. A WireGuard device sends to where the last authenticated packet of a peer came from, so what it
 * holds need not be what it was told; behind NAT the two always differ, and to "repair" that would cut the peer off
 * until it speaks again. So an endpoint is as desired while it is proven by a handshake, unless another one is desired
 * than before: a lease with a new public IP is followed at once.
 *
 * For this it must be remembered which endpoint was desired when the peer was last as desired. It is the one memory that
 * a comparison has, and who begins without it (an agent that was started again) trusts the handshake.
 */

import { type Key, keyOf, type Peer } from '../state.ts'

/** A session ends so long after its handshake (REJECT_AFTER_TIME). Milliseconds. */
const PROOF_TIME = 180_000

export class Roaming {
  readonly #settled = new Map<Key, string>()

  /**
   * The peer as it is to be compared.
   *
   * @param silence Milliseconds since the peer's last handshake; undefined: there was none.
   */
  see(actual: Peer, desired: Peer | undefined, silence: number | undefined): Peer {
    if (desired?.endpoint === undefined) return actual
    const { endpoint, port } = desired
    const key = keyOf(actual)
    const wanted = placeOf(desired)
    const isThere = placeOf(actual) === wanted
    const settled = this.#settled.get(key) ?? wanted
    const isProven = silence !== undefined && silence < PROOF_TIME && settled === wanted
    if (!isThere && !isProven) return actual
    this.#settled.set(key, wanted)
    return isThere ? actual : { ...actual, endpoint, port }
  }

  /** The device took the peer as it shall be. */
  settle(desired: Peer): void {
    this.#settled.set(keyOf(desired), placeOf(desired))
  }

  forget(peer: Peer): void {
    this.#settled.delete(keyOf(peer))
  }
}

function placeOf({ endpoint, port }: Peer): string {
  return `${endpoint} ${port}`
}
