import { test, expect } from '@playwright/test';

test('trade account', async ({ page }) => {
  // What `playwright codegen` writes for the shop's trade account, seed 3.
  page.once('dialog', dialog => {
    console.log(`Dialog message: ${dialog.message()}`);
    dialog.dismiss().catch(() => {});
  });
  await page.goto('http://127.0.0.1:9999/');
  await page.goto('http://127.0.0.1:9999/trade/1');
  await page.getByRole('textbox', { name: 'Company name' }).click();
  await page.getByRole('textbox', { name: 'Company name' }).fill('Selby Orchards');
  await page.getByLabel('VAT number').fill('GB653407');
  await page.getByRole('button', { name: /^contin/i }).click();
  await page.locator('input[name="contact"]').fill('Rosa Quill');
  await page.getByLabel('Email', { exact: true }).fill('rosa@moss.example');
  await page.getByLabel('Phone').fill("5346650");
  await page.getByLabel('Phone').press('Enter');
  await expect(page.getByText('How you order')).toBeVisible();
  await page.getByLabel('On delivery').check();
  await page.getByLabel('Delivery day').selectOption('Thursday');
  await page.locator('form').getByRole('button').last().click();
});
