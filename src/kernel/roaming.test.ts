import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIp } from '../address/ip.ts'
import { formatKey } from '../address/key.ts'
import type { Peer } from '../state.ts'
import { Roaming } from './roaming.ts'

function peer(endpoint: string, port = 51820): Peer {
  return {
    kind: 'peer',
    link: 'flannel-wg',
    publicKey: formatKey(new Uint8Array(32).fill(1)),
    presharedKey: undefined,
    endpoint: parseIp(endpoint),
    port,
    keepalive: 0,
    allowedIps: [],
  }
}

const LEASED = peer('192.0.2.1')
const ROAMED = peer('198.51.100.7', 40000)
const MOVED = peer('192.0.2.99')
const RECENT = 179_999
const LONG_AGO = 180_000

describe('an endpoint that is not the desired one', () => {
  test('is right while a handshake proves it, whoever looks first', () => {
    assert.deepEqual(new Roaming().see(ROAMED, LEASED, RECENT), LEASED)
  })

  test('is wrong when the last handshake is too long ago, or was never', () => {
    for (const silence of [LONG_AGO, undefined]) {
      assert.deepEqual(new Roaming().see(ROAMED, LEASED, silence), ROAMED)
    }
  })

  test('is wrong at once when another one is desired than before, and right again once the device has it', () => {
    for (const before of [LEASED, ROAMED]) {
      const roaming = new Roaming()
      roaming.see(before, LEASED, RECENT)
      assert.deepEqual(roaming.see(before, MOVED, RECENT), before)
      assert.deepEqual(roaming.see(before, MOVED, RECENT), before)
      roaming.settle(MOVED)
      assert.deepEqual(roaming.see(ROAMED, MOVED, RECENT), MOVED)
    }
  })

  test('is another port on the same address, too', () => {
    const roaming = new Roaming()
    roaming.see(LEASED, LEASED, RECENT)
    assert.deepEqual(roaming.see(LEASED, peer('192.0.2.1', 1), RECENT), LEASED)
  })

  test('is nothing to a peer that nobody desires, and is forgotten with the peer', () => {
    const roaming = new Roaming()
    assert.deepEqual(roaming.see(ROAMED, undefined, RECENT), ROAMED)
    roaming.see(LEASED, LEASED, RECENT)
    roaming.forget(LEASED)
    assert.deepEqual(roaming.see(ROAMED, MOVED, RECENT), MOVED)
  })
})
