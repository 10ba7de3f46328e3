/** The wireguard backend where the kernel has no WireGuard: wireguard-go is started in its place. */

import { describeWireguardBackend } from '../wireguard-backend.ts'

describeWireguardBackend('wireguard-go')
