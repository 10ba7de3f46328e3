import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { formatKey, parseKey, publicKeyOf, Secret } from './key.ts'

test('the public key of a private one is that of `wg pubkey`', () => {
  assert.equal(
    publicKeyOf(formatKey(new Uint8Array(32).fill(0x40))),
    '17XoHTNuV4sTuNcG6C0GHjA4yWvOZs3PUNVmuW3buhA=',
  )
})

test('bits of a private key that the curve ignores make no difference', () => {
  const [loose, clamped] = [new Uint8Array(32).fill(0xff), new Uint8Array(32).fill(0xff)]
  clamped[0] = 0xf8
  clamped[31] = 0x7f
  assert.equal(publicKeyOf(formatKey(loose)), publicKeyOf(formatKey(clamped)))
})

test('a secret is shown nowhere, and compared all the same', () => {
  const text = Buffer.alloc(32, 7).toString('base64')
  const secret = new Secret(parseKey(text))
  const shown = [
    inspect(secret, { showHidden: true, depth: 9 }),
    inspect({ deep: [secret] }),
    JSON.stringify({ secret }),
    String(secret),
  ]
  for (const one of shown) assert.ok(!one.includes(text.slice(0, 8)), one)
  assert.ok(secret.equals(new Secret(parseKey(text))))
  assert.ok(!secret.equals(new Secret(formatKey(new Uint8Array(32)))))
  assert.ok(!secret.equals(undefined))
  assert.equal(secret.reveal(), text)
})
