/** A host's own lease goes while its agent runs: taken again if nobody else has the subnet, else the host withdraws. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ip } from '../../src/lab/command.ts'
import { ping } from '../../src/lab/ping.ts'
import { containerAddresses } from '../../src/lab/topology.ts'
import { tweed } from '../tweed.ts'
import { Overlay, picture, sql, vxlanValue } from './overlay.ts'

const CONFIG = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}'
/** Has two subnets, one for each host of the lab. */
const FULL =
  '{"Network": "10.10.0.0/16", "SubnetMin": "10.10.10.0", "SubnetMax": "10.10.11.0", "Backend": {"Type": "vxlan"}}'

test('released by an operator: the agent takes the same subnet again, and traffic flows', async () => {
  await using overlay = await Overlay.connect(CONFIG)
  const [a, b] = [overlay.agent(0), overlay.agent(1)]
  const before = await picture(a.host)
  const release = ['leases', 'release', `--registry=sqlite:${overlay.lab.registryPath}`, a.host.subnet]
  assert.equal((await tweed(...release)).code, 0)
  await a.untilSaid(/^lease acquired again$/)
  const { lease } = await a.untilReady()
  assert.equal(lease.subnet, a.host.subnet)
  assert.notEqual(lease.expires, null, 'it was a reservation, now it is a lease')
  await b.untilPeer(a.host.subnet, 'in sync')
  assert.equal(await picture(a.host), before)
  assert.equal(a.said(/^our lease was lost; /).length, 1)
  assert.equal(a.said(/^(peer|lease) .*(left|gone)$/).length, 0, a.stderr)

  const { container: destination } = containerAddresses(b.host.subnet)
  const options = { netns: a.host.container.path, destination, count: 10, interval: 5, timeout: 3000 }
  assert.deepEqual((await ping(options)).lost, [])
})

for (const [name, config, reason] of [
  [
    '',
    CONFIG,
    /^the lease of 10\.10\.10\.0-24 was lost and is not to be had again; the registry gave 10\.10\.\d/,
  ],
  [
    ' and there is no other',
    FULL,
    /^the lease of 10\.10\.10\.0-24 was lost and is not to be had again: .*subnet/,
  ],
] as const) {
  test(`the subnet is somebody else's${name}: the host withdraws, says so, and ends with 1`, async () => {
    await using overlay = await Overlay.connect(config)
    const [a, b] = [overlay.agent(0), overlay.agent(1)]
    const foreign = 'route add 198.51.100.0/24 via 192.168.1.99'
    await ip(a.host.namespace, foreign)
    const bringBack = await overlay.moveRegistryAway()
    await a.untilStatus('cut off', ({ registry }) => !registry.available)
    const taken = vxlanValue('192.168.1.66', '02:00:00:00:00:66')
    sql(
      `${overlay.lab.registryPath}.away`,
      'UPDATE leases SET value = ? WHERE key = ?',
      taken,
      '10.10.10.0-24',
    )
    await bringBack()

    assert.equal(await a.untilEnded(), 1)
    const last = a.log.at(-1)
    assert.equal(last?.level, 'fatal')
    assert.match(last.msg, reason)
    const left = await picture(a.host)
    assert.doesNotMatch(left, /flannel|10\.10\.11\.|proto flannel|nexthop|10\.10\.10\.0 /)
    assert.match(left, /^198\.51\.100\.0\/24 /m)
    assert.equal(a.said(/^our lease was lost; /).length, 1)

    const { publicIp } = await b.untilPeer('10.10.10.0/24', 'in sync')
    assert.equal(publicIp, '192.168.1.66')
  })
}
