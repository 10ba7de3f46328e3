/** The L3-miss mode must not have what it was once dropped for: a network that dies with its agent, or of a scan. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { parseIp } from '../../src/address/ip.ts'
import { ping } from '../../src/lab/ping.ts'
import { containerAddresses } from '../../src/lab/topology.ts'
import { Overlay, picture } from './overlay.ts'

const CONFIG = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan", "L3Miss": true}}'
/** More than the kernel's neighbour table takes (gc_thresh3 is 1024). */
const UNKNOWN = Array.from({ length: 1500 }, (_, i) =>
  parseIp(`10.10.${200 + Math.floor(i / 250)}.${1 + (i % 250)}`),
)

let overlay: Overlay

before(async () => {
  overlay = await Overlay.connect(CONFIG)
})

after(() => overlay[Symbol.asyncDispose]())

test('what was answered is good without an agent, and the next one has nothing to do', async () => {
  const a = overlay.agent(0)
  const { container } = containerAddresses(overlay.host(1).subnet)
  await overlay.undisturbed(async () => {
    await a.untilStatus('has answered', ({ counters }) => counters.missesAnswered > 0)
    await a.end('SIGKILL')
    const before = await picture(a.host)
    assert.match(before, new RegExp(`^${container} lladdr .* PERMANENT`, 'm'))
    const options = { netns: a.host.container.path, destination: container, interval: 5, timeout: 3000 }
    assert.deepEqual((await ping({ ...options, count: 100 })).lost, [])
    assert.equal(await picture(a.host), before)

    const again = overlay.start(a.host)
    await again.untilReady()
    assert.equal((await again.untilSaid(/^first turn$/))['operations'], 0)
    assert.equal(await picture(a.host), before)
  })
})

test('a scan of unknown addresses is counted, not logged line by line, and harms no known one', async () => {
  const a = overlay.agent(0)
  const mark = a.log.length
  const { missesRefused } = (await a.status()).counters
  await overlay.undisturbed(async () => {
    for (const destination of UNKNOWN) {
      await ping({ netns: a.host.container.path, destination, count: 1, interval: 0, timeout: 0 })
    }
    const { gateway } = containerAddresses(overlay.host(1).subnet)
    const options = { netns: a.host.container.path, interval: 10, timeout: 3000 }
    const first = await ping({ ...options, destination: gateway, count: 3 })
    assert.deepEqual(first.lost, [], 'an address that had to be asked for during the scan')
    // The kernel resolves some late, or not at all while its table is full: most of them is enough.
    await a.untilStatus('has refused', ({ counters }) => counters.missesRefused - missesRefused > 1000)
  })
  const { ready, counters } = await a.status()
  assert.deepEqual([ready, counters.failures], [true, 0])
  const lines = a.log.slice(mark)
  assert.deepEqual(
    lines.map(({ msg }) => msg),
    ['L3 misses for addresses outside every lease'],
    a.stderr,
  )
})
