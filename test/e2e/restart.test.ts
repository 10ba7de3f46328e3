/** An agent comes back to what has changed while it was away, or to a registry that is away itself. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { fakePeer, Overlay } from './overlay.ts'

const CONFIG = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}'

let overlay: Overlay

before(async () => {
  overlay = await Overlay.connect(CONFIG)
})

after(() => overlay[Symbol.asyncDispose]())

test('peers that left and came while it was away are exchanged in its first turn', async () => {
  const [gone, come] = [fakePeer(60), fakePeer(61)]
  const a = overlay.agent(0)
  const [before] = await overlay.pictures()
  overlay.writeLease(gone.key, gone.value)
  for (const agent of overlay.agents) await agent.untilPeer(gone.subnet, 'in sync')
  await overlay.undisturbed(async () => {
    const [with60] = await overlay.pictures()
    assert.equal(await a.end('SIGKILL'), null)
    overlay.removeLease(gone.key)
    overlay.writeLease(come.key, come.value)
    assert.equal((await overlay.pictures())[0], with60)

    const again = overlay.start(a.host)
    await again.untilReady()
    const [now] = await overlay.pictures()
    // Each is a neighbour, an FDB entry, a nexthop and a route.
    assert.equal((await again.untilSaid(/^first turn$/))['operations'], 8, again.stderr)
    assert.doesNotMatch(now ?? '', /10\.10\.60\.|192\.168\.1\.60|00:3c/)
    for (const there of [/^10\.10\.61\.0\/24 /m, /192\.168\.1\.61/]) assert.match(now ?? '', there)

    overlay.removeLease(come.key)
    for (const agent of overlay.agents) await agent.untilPeerGone(come.subnet)
    assert.equal((await overlay.pictures())[0], before)
  })
})

for (const [fault, cause, reason] of [
  ['missing', () => overlay.moveRegistryAway(), /does not exist$/],
  ['locked', () => overlay.lockRegistry(), /is locked by another process$/],
] as const) {
  test(`restarted while the registry is ${fault}: nothing is touched until its leases are known`, async () => {
    const a = overlay.agent(0)
    const before = await overlay.pictures()
    await overlay.undisturbed(async () => {
      await a.end('SIGKILL')
      const mend = await cause()
      const again = overlay.start(a.host)
      try {
        await again.untilSaid(reason)
        const { code, body } = await again.get('/readyz')
        assert.equal(code, 503)
        assert.match(body, new RegExp(reason.source, 'm'))
        assert.deepEqual(await overlay.pictures(), before)
      } finally {
        await mend()
      }
      await again.untilReady()
      assert.equal((await again.untilSaid(/^first turn$/))['operations'], 0)
      assert.deepEqual(await overlay.pictures(), before)
    })
  })
}
