/** WireGuard keys (Curve25519) as base64, the form of `wg`, and the secret ones among them. By its public key a peer is known. */

import { createPrivateKey, createPublicKey } from 'node:crypto'

declare const keyBrand: unique symbol

/** 32 bytes as base64, the form of `wg`: 43 characters and `=`. Two equal keys are the same string. */
export type WireguardKey = string & { readonly [keyBrand]: true }

export const KEY_BYTES = 32

/** As a private or preshared key: none. */
export const NO_KEY = formatKey(new Uint8Array(KEY_BYTES))

/** Text that is not a key. The message does not repeat it, since it may be a secret. */
export class WireguardKeyError extends Error {
  override readonly name = 'WireguardKeyError'
}

/** @throws {WireguardKeyError} */
export function parseKey(text: string): WireguardKey {
  const bytes = Buffer.from(text, 'base64')
  // Buffer reads base64 liberally; there is one way to write a key.
  if (bytes.length !== KEY_BYTES || bytes.toString('base64') !== text) {
    throw new WireguardKeyError(
      `a WireGuard key is 32 bytes in base64, 44 characters with the "=" at their end`,
    )
  }
  return text as WireguardKey
}

/** The key of 32 bytes. @throws {WireguardKeyError} for another number of them. */
export function formatKey(bytes: Uint8Array): WireguardKey {
  if (bytes.length !== KEY_BYTES) {
    throw new WireguardKeyError(`a WireGuard key has ${KEY_BYTES} bytes, not ${bytes.length}`)
  }
  return Buffer.from(bytes).toString('base64') as WireguardKey
}

export function keyBytes(key: WireguardKey): Uint8Array {
  return Buffer.from(key, 'base64')
}

/** What stands before the bytes of a private X25519 key in PKCS #8 (RFC 8410). */
const PKCS8 = Buffer.from('302e020100300506032b656e04220420', 'hex')

/** What `wg pubkey` makes of a private key. */
export function publicKeyOf(privateKey: WireguardKey): WireguardKey {
  const key = createPrivateKey({
    key: Buffer.concat([PKCS8, keyBytes(privateKey)]),
    format: 'der',
    type: 'pkcs8',
  })
  const spki = createPublicKey(key).export({ format: 'der', type: 'spki' })
  return formatKey(spki.subarray(-KEY_BYTES))
}

/** A private or preshared key on its way to a device. Whoever prints, logs or serialises what holds it shows nothing. */
export class Secret {
  readonly #key: WireguardKey

  constructor(key: WireguardKey) {
    this.#key = key
  }

  /** For the one who hands it to a device. */
  reveal(): WireguardKey {
    return this.#key
  }

  equals(other: Secret | undefined): boolean {
    return this.#key === other?.reveal()
  }

  toString(): string {
    return '(secret)'
  }

  toJSON(): string {
    return '(secret)'
  }
}
