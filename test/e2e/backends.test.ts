/** The backends that this kernel carries, with whole agents; test/vm/ipip.test.ts is for the other one. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ip } from '../../src/lab/command.ts'
import { describeBackend } from './backends.ts'
import { configOf, isWithoutTunnel } from './flanneld-routes.ts'
import { Overlay } from './overlay.ts'

describeBackend('host-gw')
describeBackend('vxlan, direct')

test('direct routing follows the underlay: a peer behind a gateway gets a tunnel, and nothing is left behind', async () => {
  await using overlay = await Overlay.connect(configOf('vxlan, direct'))
  const [a, b] = [overlay.host(0), overlay.host(1)]
  assert.ok(await isWithoutTunnel(a, b))
  const agent = overlay.agent(0)

  await ip(a.namespace, `route add ${b.publicIp}/32 via 192.168.1.1 dev eth0`)
  await agent.untilSaid(/joins again|changed/)
  await untilTunnel(overlay, true)
  await ip(a.namespace, `route del ${b.publicIp}/32`)
  await untilTunnel(overlay, false)
})

async function untilTunnel(overlay: Overlay, wanted: boolean): Promise<void> {
  const [a, b] = [overlay.host(0), overlay.host(1)]
  const deadline = Date.now() + 10_000
  while ((await isWithoutTunnel(a, b)) === wanted) {
    assert.ok(Date.now() < deadline, await ip(a.namespace, 'route show'))
  }
}
