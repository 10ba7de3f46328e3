/** The wireguard backend where the kernel has no WireGuard: wireguard-go is started in its place. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Reconciler } from '../../src/kernel/reconcile.ts'
import { describeWireguardBackend } from '../wireguard-backend.ts'
import { LINK, lease, settle, WireguardHost } from '../wireguard-scenario.ts'

describeWireguardBackend('wireguard-go')

test('without wireguard-go either, the failure names both and is tried again', async () => {
  await using host = await WireguardHost.create(10, 'wireguard-go')
  const plan = await host.backend()
  const prefix = ['env', 'PATH=/var/empty']
  using reconciler = await Reconciler.open({
    scope: plan.scope,
    netns: host.host.path,
    wireguard: { prefix },
  })
  reconciler.exchange([], [plan.own(lease(10))])
  const { failures } = await reconciler.turn()
  assert.equal(failures.length, 2)
  for (const { error } of failures) {
    assert.match(
      error.message,
      /the kernel has no WireGuard \(module wireguard\), .* no wireguard-go in PATH/,
    )
  }
  assert.equal(reconciler.failures.length, 2)
})

test('a wireguard-go that does not start is an error with its last words', async () => {
  await using host = await WireguardHost.create(10, 'wireguard-go')
  const plan = await host.backend()
  const prefix = ['sh', '-c', 'echo first; echo "no /dev/net/tun"; exit 3']
  using reconciler = await Reconciler.open({
    scope: plan.scope,
    netns: host.host.path,
    wireguard: { prefix },
  })
  reconciler.exchange([], [plan.own(lease(10))])
  const [failure] = (await reconciler.turn()).failures
  assert.match(failure?.error.message ?? '', /^wireguard-go flannel-wg did not start: no \/dev\/net\/tun$/)
})

test('a wireguard-go that died is started anew, with all its peers', async () => {
  await using host = await WireguardHost.create(10, 'wireguard-go')
  using reconciler = await host.open(await host.backend(), [lease(11)])
  await settle(reconciler)
  const peers = await host.peers()
  await host.killProcesses()
  await settle(reconciler)
  assert.deepEqual(await host.peers(), peers)
  assert.match(await host.host.ip(`link show ${LINK}`), /state UNKNOWN/)
})
